#!/usr/bin/env bash
# Runs the benchmarks of the release build; arguments go to each of them, such as --benchmark_filter=REGEX.
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/build.sh

shopt -s nullglob
programs=(build/bin/evenspan_*_bench)
((${#programs[@]})) || { echo "evenspan: no benchmark was built; Google Benchmark is needed (libbenchmark-dev)" >&2; exit 1; }
for program in "${programs[@]}"; do
  "$program" "$@"
done
