#!/usr/bin/env bash
# Runs attention over hosts made of network namespaces with shaped links; arguments go to bench/hosts/bench_hosts.py.
set -euo pipefail
source "$(dirname "$0")/env.sh"
python3 bench/hosts/network.py  # before anything is built: ends here, with a message, without root or iproute2
scripts/build.sh
exec "$python" bench/hosts/bench_hosts.py "$@"
