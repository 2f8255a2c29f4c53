#!/usr/bin/env bash
# Builds the trainer, trains a small Llama on the interpreter's standard library, on 4 ranks and again on 1; says whether
# the two runs are equal and writes report.html into the folder given as argument (build/demo). A second argument is
# another configuration, such as examples/hybrid/hybrid.toml or examples/global_batches/global_batches.toml.
set -euo pipefail
source "$(dirname "$0")/env.sh"

folder=${1:-build/demo}
config=${2:-examples/demo/demo.toml}
program=build/bin/evenspan-train
cores=$(nproc)

echo "== 1 of 4: set up and build the trainer; the first time up to $((8 / (cores < 4 ? cores : 4) + 2)) minutes on $cores cores, later seconds"
scripts/build.sh product evenspan-train
library=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')

rm -rf "$folder"
mkdir -p "$folder"

# run NAME RANKS THREADS [option value ...]
run() {
  local name=$1 ranks=$2 threads=$3
  shift 3
  "$program" "$config" --ranks "$ranks" --data.path "$library" --run.folder "$folder/$name" \
    --parallel.threads_per_rank "$threads" "$@"
}

# One rank is one replica, and computes a step at once.
whole=(--parallel.replicas 1 --parallel.micro_batch_tokens 0)

echo
echo "== 2 of 4: train on 4 ranks; up to 20 seconds on 2 cores"
run ranks-4 4 $((cores > 4 ? cores / 4 : 1))
echo
echo "== 3 of 4: the same run on 1 rank; up to 15 seconds"
run rank-1 1 "$cores" "${whole[@]}"
echo
echo "== 4 of 4: 1 rank, the same documents packed in other orders, for what rounding alone does; five times up to 15 seconds"
others=()
for order in 1 2 3 4 5; do
  run "repacked-$order" 1 "$cores" "${whole[@]}" --data.pack_order $order | grep '^done'
  others+=("$folder/repacked-$order")
done
"$program" compare "$folder/ranks-4" "$folder/rank-1" "${others[@]}" --page "$folder/report.html"
