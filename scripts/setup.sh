#!/usr/bin/env bash
# Brings a Debian or Ubuntu machine with git, make and Python 3.11+ to where the build can start: Debian packages and
# .venv. Does nothing, quickly, when all is there; with EVENSPAN_PYTHON it does nothing at all.
#   scripts/setup.sh [LEVEL]   LEVEL: product, what the programs and the package need; or all, with tests and lint
set -euo pipefail
source "$(dirname "$0")/env.sh"
[[ -z "${EVENSPAN_PYTHON:-}" ]] || exit 0
level=${1:-all}

fail() {
  echo "evenspan: $1" >&2
  exit 1
}

base=$(command -v python3) || fail "python3 is not in PATH; install Python 3.11 or newer"
[[ -x .venv/bin/python ]] && base=.venv/bin/python
about=$("$base" - <<'PYTHON'
import importlib.util, os, sys, sysconfig
print("%d.%d" % sys.version_info[:2],
      int(sys.version_info >= (3, 11)),
      int(importlib.util.find_spec("ensurepip") is not None),
      int(os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
PYTHON
)
read -r version new_enough has_venv has_headers <<<"$about"
((new_enough)) || fail "$base is Python $version; 3.11 or newer is needed"

# Debian packages.
packages=(g++ cmake ninja-build ccache zlib1g-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev)
if [[ $level == all ]]; then
  packages+=(libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev)
  # The pages are tested in a browser. Ubuntu's package of that name is a snap, which knows no headless machine.
  grep -q '^ID=debian' /etc/os-release 2>/dev/null && packages+=(chromium)
fi
((has_venv)) || packages+=("python$version-venv")
((has_headers)) || packages+=("python$version-dev")
command -v dpkg-query >/dev/null || fail "this is not Debian or Ubuntu; install the counterparts of: ${packages[*]}, \
then give an interpreter that has torch: EVENSPAN_PYTHON=/path/to/python3 make test"
present=$(dpkg-query -W -f '${Package} ${Status}\n' "${packages[@]}" 2>/dev/null | sed -n 's/ install ok installed$//p' || true)
missing=()
for package in "${packages[@]}"; do
  grep -qxF -- "$package" <<<"$present" || missing+=("$package")
done
if ((${#missing[@]})); then
  by_hand="Debian packages are missing; install them as root: apt-get install ${missing[*]}"
  root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "$by_hand"
    root=(sudo)
    [[ -t 0 ]] || root+=(-n)
  fi
  echo "evenspan: installing Debian packages: ${missing[*]}"
  { "${root[@]}" apt-get update -q &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } ||
    fail "$by_hand"
fi

# Python packages, when their list has changed.
lists=(scripts/requirements.txt)
[[ $level == all ]] && lists+=(scripts/requirements-dev.txt)
for list in "${lists[@]}"; do
  wanted=$(sha256sum <"$list")
  installed=.venv/evenspan-$(basename "$list" .txt)
  [[ -x .venv/bin/python && "$(cat "$installed" 2>/dev/null)" == "$wanted" ]] && continue
  echo "evenspan: installing Python packages of $list into .venv"
  [[ -x .venv/bin/python ]] || python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$list"
  echo "$wanted" >"$installed"
done
