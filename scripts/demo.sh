#!/usr/bin/env bash
# Trains a small Llama on the interpreter's standard library, on 4 ranks and again on 1; says whether the two runs are
# equal and writes report.html into the folder given as argument (build/demo). A second argument is another
# configuration, such as examples/hybrid/hybrid.toml.
set -euo pipefail
source "$(dirname "$0")/env.sh"

folder=${1:-build/demo}
config=${2:-examples/demo/demo.toml}
program=build/bin/evenspan-train
library=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')

if [[ ! -x $program ]]; then
  echo "evenspan: $program is not there; it needs nlohmann-json3-dev and libtomlplusplus-dev, then make build" >&2
  exit 1
fi
rm -rf "$folder"
mkdir -p "$folder"

# run NAME RANKS THREADS [option value ...]
run() {
  local name=$1 ranks=$2 threads=$3
  shift 3
  "$program" "$config" --ranks "$ranks" --data.path "$library" --run.folder "$folder/$name" \
    --parallel.threads_per_rank "$threads" "$@"
}

cores=$(nproc)
echo "== 4 ranks"
run ranks-4 4 $((cores > 4 ? cores / 4 : 1))
echo
echo "== the same run on 1 rank"
run rank-1 1 "$cores"
echo
echo "== 1 rank, the same documents packed in other orders: what rounding alone does"
others=()
for order in 1 2 3 4 5; do
  run "repacked-$order" 1 "$cores" --data.pack_order $order | grep '^done'
  others+=("$folder/repacked-$order")
done
"$program" compare "$folder/ranks-4" "$folder/rank-1" "${others[@]}" --page "$folder/report.html"
