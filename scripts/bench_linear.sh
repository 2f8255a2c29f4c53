#!/usr/bin/env bash
# Times linear attention beside other ways to compute it, on processes of this machine; arguments go to
# bench/linear/bench_linear.py.
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/build.sh

# The peer imports Triton, which is not there: bench_linear.py stands in for its kernels.
peer=build/lasp-0.0.1
if [[ ! -d $peer ]]; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target $peer.new lasp==0.0.1
  mv $peer.new $peer
fi
PYTHONPATH=$peer exec "$python" bench/linear/bench_linear.py "$@"
