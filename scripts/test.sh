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

# In .venv nothing may be missing, or its tests fail. A given interpreter may lack what some tests need: those are left
# out, with a message. A file of tests imports what it needs in its first lines.
without=()
leave_out() {  # REASON PATH...
  echo "evenspan: $1, so these tests are off: ${*:2}"
  for path in "${@:2}"; do without+=("--ignore=$path"); done
}
has_pytest=1
if ! grep -q '^ID=debian' /etc/os-release || [[ -n "${EVENSPAN_PYTHON:-}" ]]; then
  command -v chromium chromium-browser google-chrome >/dev/null || leave_out "there is no Chromium" tests/cli/test_page.py
fi
if [[ -n "${EVENSPAN_PYTHON:-}" ]]; then
  "$python" -c 'import pytest' 2>/dev/null || has_pytest=0
  [[ -x build/bin/evenspan ]] || leave_out "build/bin/evenspan was not built" tests/cli
  [[ -x build/bin/evenspan-train ]] ||
    leave_out "build/bin/evenspan-train was not built" tests/python/test_llama_*.py tests/processes/test_torchrun.py
  [[ -x build/bin/evenspan-calibrate ]] ||
    leave_out "build/bin/evenspan-calibrate was not built" tests/processes/test_calibrate.py
  for module in evenspan transformers highsbox; do
    "$python" -c "import $module" 2>/dev/null && continue
    mapfile -t files < <(grep -rlE "^(import|from) $module\b" tests --include='*.py')
    leave_out "$python cannot import $module" "${files[@]}"
  done
fi
if ((has_pytest)); then
  spread=(-n "$(nproc)" --dist worksteal)
  "$python" -c 'import xdist' 2>/dev/null || spread=()  # a given interpreter may lack it
  "$python" -m pytest ${spread[@]+"${spread[@]}"} ${without[@]+"${without[@]}"} || status=1
else
  echo "evenspan: $python has no pytest, so the Python tests are off"
fi
exit $status
