#!/usr/bin/env bash
# Compares Evenspan with its peers on processes of this machine; arguments go to bench/peers/run.py.
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/build.sh

# An environment of its own, on top of the build's: what the peers bring stays out of that one.
venv=build/peers-venv
wanted=$(cat bench/peers/requirements.txt "$0" | sha256sum)
if [[ "$(cat $venv/evenspan-requirements 2>/dev/null)" != "$wanted" ]]; then
  echo "evenspan: installing the peers into $venv"
  "$python" -m venv --clear $venv
  own=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$own/evenspan-build.pth"
  pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  "${pip[@]}" setuptools==84.2.1 wheel==0.47.0
  # DeepSpeed comes as source, whose setup looks for torch; its operators are compiled where they are used, if ever.
  DS_BUILD_OPS=0 "${pip[@]}" --no-deps --no-build-isolation -r bench/peers/requirements.txt
  echo "$wanted" >$venv/evenspan-requirements
fi
exec $venv/bin/python bench/peers/run.py "$@"
