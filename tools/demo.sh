#!/usr/bin/env bash
# What `make demo` shows: the shipped FoE model served on two ranks, an answer as it is made, what the ranks exchanged for
# each token with plan foe and, for the MoE model of the same shape, with plan tp; then a clean stop.
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-"Anne had always been of opinion that"}
tokens=96
. tools/serve_for.sh
start_server models/foe-8m --ranks 2 --port 0

echo "models/foe-8m on two ranks at $url. curl $url/v1/completions, streaming:"
echo
printf '\033[1m%s\033[0m' "$prompt"
jq -n --arg prompt "$prompt" --argjson n "$tokens" \
  '{$prompt, max_tokens: $n, temperature: 0.7, top_p: 0.9, seed: 1, stream: true}' |
  curl -sSN --fail-with-body "$url/v1/completions" -H 'Content-Type: application/json' -d @- |
  sed -un 's/^data: \({.*\)/\1/p' | jq -rj --unbuffered '.choices[0].text // empty'
echo
echo

stop_server
echo

# The flags that Open MPI needs as root and on few cores: docs/running.md.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
generate() {
  mpirun -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl self,vader \
    build/foe generate "models/$1" --prompt "$prompt" --max-tokens "$tokens" --ignore-eos --json
}
echo "What two ranks exchange for each decoded token (greedy, $tokens tokens; messages and bytes of both ranks together):"
echo
for model in foe-8m moe-8m; do
  [[ -f models/$model/model.safetensors ]] || continue
  generate "$model" | jq --arg model "$model" '{model: $model} + .'
done | jq -rs '
  def rounded: . * 100 | round / 100;
  ["model", "plan", "collective", "exchanges", "messages", "bytes", "ms/token"],
  (.[] | . as $run | ("broadcast", "sum", "gather") as $c |
    [$run.model, $run.plan, $c,
     ($run.decode_counters_by_rank[0][$c].calls / $run.decode_steps | rounded),
     ([$run.decode_counters_by_rank[][$c].messages] | add / $run.decode_steps | rounded),
     ([$run.decode_counters_by_rank[][$c].bytes] | add / $run.decode_steps | rounded),
     (if $c == "sum" then 1000 * $run.decode_s / $run.decode_steps | rounded else "" end)]) | @tsv' |
  column -t -s "$(printf '\t')"
