#!/usr/bin/env bash
# Builds and runs the tests of a sanitizer preset: scripts/sanitize.sh asan|tsan
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/build.sh "$1" evenspan_test_programs

# The thread sanitizer of older compilers knows no kernel that randomises more address bits than 28.
fixed=()
[[ $1 == tsan ]] && setarch --addr-no-randomize true 2>/dev/null && fixed=(setarch --addr-no-randomize)
"${fixed[@]}" ctest --preset "$1" --no-tests=error --parallel "$(nproc)"
