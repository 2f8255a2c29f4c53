#!/usr/bin/env bash
# Compares simulated with measured attention; arguments go to bench/prediction_report.py.
set -euo pipefail
source "$(dirname "$0")/env.sh"
scripts/build.sh
"$python" bench/prediction_report.py "$@"
