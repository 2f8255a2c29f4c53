# Every target sets up what it needs. EVENSPAN_PYTHON=/path/to/python3 uses an interpreter that has torch 2.11 to 2.13
# and installs nothing.
.PHONY: help build test demo bench bench-hosts bench-linear bench-peers bench-prediction gpu-check lint format clean

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

build:  ## Build the programs (build/bin) and the Python package (.venv), in release.
	scripts/build.sh product

test:  ## Build, then run every test.
	scripts/test.sh

demo:  ## Train a small model on 4 ranks and compare with 1.
	scripts/demo.sh

bench:  ## Run the benchmarks.
	scripts/bench.sh

bench-hosts:  ## Run attention over hosts with shaped links between them; needs root and iproute2.
	scripts/bench_hosts.sh

bench-peers:  ## Compare with other systems of sequence parallelism; installs them into build/peers-venv.
	scripts/bench_peers.sh

bench-linear:  ## Time linear attention beside an all-to-all of heads, LASP's own code and softmax attention.
	scripts/bench_linear.sh

bench-prediction:  ## Compare simulated with measured attention on 2 processes.
	scripts/bench_prediction.sh

gpu-check:  ## Run the parity sweep on a CUDA device.
	scripts/gpu_check.sh

lint:  ## Check format, lint and types.
	scripts/lint.sh

format:  ## Format all own files.
	scripts/lint.sh --fix

clean:  ## Remove what was built; .venv stays.
	rm -rf build
