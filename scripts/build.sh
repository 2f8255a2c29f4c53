#!/usr/bin/env bash
# Builds a CMake preset, `release` unless another is named: scripts/build.sh [PRESET [TARGET...]]
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/setup.sh

preset=${1:-release}
targets=("${@:2}")
dir=build/$preset
[[ $preset == release ]] && dir=build

# Configured once for each interpreter; after that the build itself sees changes of the CMake files.
interpreter=${EVENSPAN_PYTHON:+$python}
if [[ "$(cat "$dir/evenspan-interpreter" 2>/dev/null)" != "interpreter: $interpreter" ]]; then
  generator=()
  command -v ninja >/dev/null || generator=(-G "Unix Makefiles")
  cmake --preset "$preset" "${generator[@]}" -DEVENSPAN_PYTHON="$interpreter"
  echo "interpreter: $interpreter" >"$dir/evenspan-interpreter"
fi
cmake --build "$dir" --parallel "$(nproc)" ${targets[@]+--target "${targets[@]}"}

# The package goes into .venv as the wheel that users get, packed by scikit-build-core from what was just compiled (it
# shares the build folder). Not an editable install: that would hide a file that the wheel lacks.
shopt -s nullglob
modules=(build/python/evenspan/_evenspan*.so)
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
