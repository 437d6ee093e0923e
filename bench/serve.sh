#!/usr/bin/env bash
# The server under load, on two ranks of one machine (docs/lab/2026-11-26-server-overload.md).
#
#   bench/serve.sh OUT [PART...]
#
#   sweep     latency against rate: models/foe-8m, the paper's workload and random prompts    8 minutes
#   overload  the 1B shape: peak goodput, then ten times as many requests                     9
#   idle      CPU of a server that nobody asks anything                                       1
#   offline   the engine alone, 16 requests at once on the 1B shape, against the roofline     2
#   quick     all of these, shorter: too short for a peak to be one                           4
#   full      all of these                                                                   20
#
# Minutes are estimates for 2 cores. Without a PART: quick. Writes OUT/*.json, OUT/serving.png, and a table of all that
# OUT has, as OUT/summary.json too. The picture needs matplotlib (tools/requirements.txt); PYTHON is the interpreter that
# has it (python3). The 1B shape has random weights: 2 GB in OUT/1b, or in FOE_1B, which are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -eq 0 || $1 == -* ]]; then
  sed -n "2,/^[^#]/s/^# \{0,1\}//p" bench/serve.sh >&2
  exit 2
fi
out=$(realpath -m "$1")
foe=$(realpath build/foe)
small=models/foe-8m large=$(realpath -m "${FOE_1B:-$out/1b}")
python=${PYTHON:-python3}
mkdir -p "$out"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
server='' port='' seed=0
trap '[[ -z $server ]] || kill "$server"' EXIT

make_large() {
  [[ -d $large ]] || "$foe" bench make-model "$large" --shape paper-1b --tokenizer "$small"
}

# start MODEL FLAGS...
start() {
  : >"$out/server.log" # not the last one's port
  "$foe" serve "$1" --ranks 2 --threads 1 --port 0 "${@:2}" 2>"$out/server.log" &
  server=$!
  until port=$(sed -n 's|.*listening on http://127.0.0.1:||p' "$out/server.log") && [[ -n $port ]]; do
    kill -0 "$server" 2>/dev/null || { cat "$out/server.log" >&2 && exit 1; }
    sleep 0.2
  done
}
stop() {
  kill "$server" && wait "$server"
  server=''
}

# load NAME MODEL RATE SECONDS FLAGS...: OUT/NAME-RATEqps.json. Prompts that came before would be in the cache.
load() {
  echo "== $1, $3 requests/s for $4 s"
  "$foe" bench serve --port "$port" --tokenizer "$2" --request-rate "$3" \
    --num-prompts "$(awk "BEGIN { print int($3 * $4 + 0.5) }")" --num-warmups 1 --seed $((++seed)) --save-result \
    --result-dir "$out" --result-filename "$1-$3qps.json" "${@:5}"
}

paper=(--preset paper --scale 0.01)
random=(--dataset-name random --random-input-len 64 --random-output-len 64 --random-range-ratio 0.5)

# sweep SECONDS RATE...
sweep() {
  rm -f "$out"/sweep-*.json
  start "$small"
  for rate in "${@:2}"; do
    load sweep-paper "$small" "$rate" "$1" "${paper[@]}"
    load sweep-random "$small" "$rate" "$1" "${random[@]}"
  done
  stop
  "$python" tools/plot_serve.py "paper's workload=$out/sweep-paper-*.json" "random=$out/sweep-random-*.json" \
    --png "$out/serving.png"
}

# overload SECONDS SECONDS_OF_OVERLOAD RATE...: a good answer begins within 15 s and goes on at 1 token/s at least. With a
# batch of 16 and half as many that wait, what is accepted can be. The KV cache is full, and memory level, before the end.
overload() {
  local rate good=(--goodput ttft:15000 tpot:1000)
  make_large
  rm -f "$out"/overload-*.json "$out"/peak-*.json
  start "$large" --max-sequences 16 --max-queue 24 --kv-tokens 8192
  for rate in "${@:3}"; do load peak "$large" "$rate" "$1" "${random[@]}" "${good[@]}"; done
  rate=$("$python" tools/serve_table.py "$out" --overload-rate)
  "$python" tools/watch_processes.py "$server" --json "$out/overload-processes.json" &
  local watch=$!
  load overload "$large" "$rate" "$2" "${random[@]}" "${good[@]}"
  kill -INT "$watch" && wait "$watch"
  stop
}

# idle SECONDS
idle() {
  start "$small"
  curl -sf "http://127.0.0.1:$port/v1/completions" -d '{"prompt": "It was", "max_tokens": 8}' >/dev/null
  sleep 5
  "$python" tools/watch_processes.py "$server" --seconds "$1" --json "$out/idle.json"
  stop
}

# offline OUTPUT_TOKENS
offline() {
  make_large
  local flags=(--num-prompts 16 --max-sequences 16 --random-input-len 64 --random-output-len "$1")
  echo "== 16 requests at once"
  "$foe" bench offline "$large" --threads 2 "${flags[@]}" --json "$out/offline-1-rank.json"
  mpirun -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
    "$foe" bench offline "$large" --threads 1 "${flags[@]}" --json "$out/offline-2-ranks.json"
}

run() {
  case $1 in
  sweep) sweep 20 1 2 4 8 12 16 24 32 ;;
  overload) overload 60 120 0.5 1 2 4 8 ;;
  idle) idle 30 ;;
  offline) offline 192 ;;
  quick) sweep 4 4 16 && overload 12 24 1 4 && idle 10 && offline 24 ;;
  full) run sweep && run overload && run idle && run offline ;;
  *) echo "serve.sh: expected one of the parts that ${0##*/} lists without arguments, got '$1'" >&2 && exit 2 ;;
  esac
}

parts=("${@:2}")
[[ ${#parts[@]} -gt 0 ]] || parts=(quick)
for part in "${parts[@]}"; do run "$part"; done
"$python" tools/serve_table.py "$out"
