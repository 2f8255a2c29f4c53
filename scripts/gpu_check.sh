#!/usr/bin/env bash
# Runs the parity sweep on thread ranks that share a CUDA device. Fails, with a message, where torch sees none.
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/setup.sh

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "evenspan: the torch of $python sees no CUDA device; run this on a machine with one, if need be with" \
       "EVENSPAN_PYTHON=/path/to/python3 make gpu-check" >&2
  exit 1
fi
scripts/build.sh

program=build/bin/evenspan_run_tests
[[ -x $program ]] || { echo "evenspan: $program was not built; Google Test and RapidCheck are needed" >&2; exit 1; }
exec $program --device=cuda
