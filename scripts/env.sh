# Sourced by the other scripts: goes to the repository's root and sets `python`, the interpreter of this build.
# EVENSPAN_PYTHON names an existing one, which then sees the package through PYTHONPATH; else .venv has it installed.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -n "${EVENSPAN_PYTHON:-}" ]]; then
  if ! python=$(command -v "$EVENSPAN_PYTHON"); then
    echo "evenspan: EVENSPAN_PYTHON=$EVENSPAN_PYTHON is no program; give the path of a Python 3.11+ with torch" >&2
    exit 1
  fi
  export PYTHONPATH="$PWD/build/python${PYTHONPATH:+:$PYTHONPATH}"
else
  python=$PWD/.venv/bin/python
fi
