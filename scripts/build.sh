#!/usr/bin/env bash
# Builds a CMake preset, `release` unless another is named, or of the release build the product alone, without tests
# and benchmarks:
#   scripts/build.sh [PRESET [TARGET...]]
#   scripts/build.sh product [TARGET...]
set -euo pipefail
source "$(dirname "$0")/env.sh"

preset=${1:-release}
targets=("${@:2}")
level=all
if [[ $preset == product ]]; then
  preset=release
  level=product
  ((${#targets[@]})) || targets=(evenspan_product)
fi
scripts/setup.sh $level
dir=build/$preset
[[ $preset == release ]] && dir=build

# Configured once for each interpreter, and once more when tests and benchmarks come to the product; after that the
# build itself sees changes of the CMake files.
interpreter=${EVENSPAN_PYTHON:+$python}
configured=$(cat "$dir/evenspan-configured" 2>/dev/null || true)
if [[ $configured != "all $interpreter" && $configured != "$level $interpreter" ]]; then
  options=(-DEVENSPAN_PYTHON="$interpreter")
  command -v ninja >/dev/null || options+=(-G "Unix Makefiles")
  if [[ $level == product ]]; then
    options+=(-DEVENSPAN_TESTS=OFF -DEVENSPAN_BENCH=OFF)
  else
    options+=(-DEVENSPAN_TESTS=ON)
  fi
  cmake --preset "$preset" "${options[@]}"
  echo "$level $interpreter" >"$dir/evenspan-configured"
fi
cmake --build "$dir" --parallel "$(nproc)" ${targets[@]+--target "${targets[@]}"}

# The package goes into .venv as the wheel that users get, packed by scikit-build-core from what was just compiled (it
# shares the build folder). Not an editable install: that would hide a file that the wheel lacks.
shopt -s nullglob
modules=(build/python/evenspan/_evenspan*.so)
[[ ${targets[*]-} == "" || ${targets[*]} == evenspan_product ]] || modules=()  # others may be of an older build
if [[ $preset == release && -z "$interpreter" ]] && ((${#modules[@]})); then
  mapfile -t contents < <(find python/evenspan -type f -not -name '*.pyc' | sort)
  contents+=(pyproject.toml "${modules[@]}" build/bin/evenspan build/bin/evenspan-*)
  wanted=$(sha256sum "${contents[@]}" 2>/dev/null || true)
  if [[ "$(cat .venv/evenspan-package 2>/dev/null)" != "$wanted" ]]; then
    echo "evenspan: installing the package into .venv"
    "$python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall \
      --config-settings build-dir=build .
    echo "$wanted" >.venv/evenspan-package
  fi
fi
