#!/usr/bin/env bash
# Runs every test of the release build: the native programs under ctest, then pytest. Both run, whatever the first says.
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/build.sh

status=0
none=error
[[ -n "${EVENSPAN_PYTHON:-}" ]] && none=ignore  # Test programs are off where their libraries are missing.
ctest --test-dir build --output-on-failure --no-tests=$none --parallel "$(nproc)" || status=1
# How many cases each program ran, and what it skipped, which ctest keeps to itself.
grep -hE '^\[(=+\] [0-9]+ tests? .* ran|  (PASSED|SKIPPED|FAILED) +\] [0-9]+ test)' build/Testing/Temporary/LastTest.log || true

without=()
if [[ ! -x build/bin/evenspan ]]; then
  echo "evenspan: the tests of the command line are off, build/bin/evenspan was not built"
  without+=(--ignore=tests/cli)
fi
if "$python" -c 'import pytest' 2>/dev/null; then
  "$python" -m pytest "${without[@]}" || status=1
else
  echo "evenspan: the Python tests are off, $python has no pytest"
fi
exit $status
