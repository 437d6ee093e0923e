#!/usr/bin/env bash
# How far foe simulate is off on this machine: calibrates on 2 ranks with one thread each, then measures forward passes
# and serving that the calibration has not seen, simulates the same, and prints each beside the other. Nothing
# else may run meanwhile; it takes ten minutes. Usage: bench/simulate_check.sh OUT [build/foe]
set -euo pipefail
out=${1:?usage: bench/simulate_check.sh OUT [build/foe]}
foe=${2:-build/foe}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpi() { mpirun -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 "$@"; }

mpi "$foe" simulate calibrate "$out/cluster.toml" --threads 1 > "$out/calibrate.txt"
rungs='A ep,A ep split,B tp,D foe' loads=one-prompt,many-prompts,decode tokens=4,32,128,1024,4096
mpi "$foe" bench latency --threads 1 --rungs "$rungs" --loads $loads --tokens $tokens --json "$out/measured.json"
"$foe" simulate latency --cluster "$out/cluster.toml" --ranks 2 --layers 2 --rungs "$rungs" --loads $loads \
  --tokens $tokens --json "$out/simulated.json" > "$out/simulated.txt"

# A model of the paper's shape with few layers, so that a run of requests takes a minute.
for plan in tp ep foe; do
  model=$out/model-$plan
  [[ -d $model ]] || "$foe" bench make-model "$model" --shape paper-1b --layers 4 --tokenizer "$here/../models/moe-8m" \
    --form $([[ $plan == foe ]] && echo foe || echo moe) > "$out/make-$plan.txt"
  "$foe" serve "$model" --ranks 2 --threads 1 --plan $plan --port 8931 > "$out/serve-$plan.log" 2>&1 &
  server=$!
  load=(--preset paper --scale 0.05 --gap 20 --num-prompts 60 --seed 3)
  "$foe" bench serve --port 8931 --tokenizer "$model" "${load[@]}" --ready-check-timeout-sec 300 --num-warmups 2 \
    --save-result --result-dir "$out" --result-filename "served-$plan.json" > "$out/served-$plan.txt" || true
  kill -INT $server && wait $server || true
  "$foe" simulate serve --cluster "$out/cluster.toml" --shape "$model" --ranks 2 --plan $plan "${load[@]}" \
    --json "$out/served-$plan-simulated.json" > "$out/served-$plan-simulated.txt"
done
python3 "$here/simulate_errors.py" "$out"
