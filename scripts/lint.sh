#!/usr/bin/env bash
# Checks format and lint of all own files; `scripts/lint.sh --fix` formats instead of checking.
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/setup.sh
bin=$(dirname "$python")

folders=()
for folder in include src tests bench examples python cmake; do
  [[ -d $folder ]] && folders+=("$folder")
done
mapfile -t cxx < <(find "${folders[@]}" -name '*.h' -o -name '*.cc' | sort)

if [[ ${1:-} == --fix ]]; then
  "$bin/clang-format" -i "${cxx[@]}"
  "$bin/ruff" format .
  "$bin/ruff" check --fix .
  exit
fi

status=0
check() {
  echo "lint: $1"
  "${@:2}" || status=1
}
# clang-tidy reads core, plan, simulate, batch and highs as the build without torch compiles them. The analyzer gives up
# on a function after a third of the states that it follows by default: most of the time would go there.
tidy() {
  cmake --preset plan >/dev/null
  local arguments=(-p build/plan --quiet --extra-arg=-Wno-unknown-warning-option)
  for argument in -Xclang -analyzer-config -Xclang max-nodes=75000; do arguments+=("--extra-arg=$argument"); done
  find src/core src/plan src/simulate src/batch src/highs -name '*.cc' -print0 |
    xargs -0 -P "$(nproc)" -n 4 "$bin/clang-tidy" "${arguments[@]}"
}
check "clang-format" "$bin/clang-format" --dry-run -Werror "${cxx[@]}"
check "ruff format" "$bin/ruff" format --check .
check "ruff check" "$bin/ruff" check .
check "mypy" "$bin/mypy"
check "clang-tidy" tidy
exit $status
