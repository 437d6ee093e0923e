#!/usr/bin/env bash
# Two nodes: all collectives, with two ranks on each and with an odd one. Then, with a 100 Mbit/s link between them,
# `foe logits` writes the same bytes there on two ranks (and on eight, which share groups) as here on one, with plans foe
# and ep, and what the ranks exchange does cross the link: in a decode step what `foe inspect` predicts.
#
#   tests/dist/netlab_test.sh build/foe build/tests/comm_mpi_test
set -euo pipefail
tests=$(cd "$(dirname "$0")/.." && pwd)
lab=$tests/../tools/netlab/lab
foe=$(realpath "$1")
collectives=$(realpath "$2")

if ! reason=$("$lab" check 2>&1); then
  echo "SKIPPED: $reason"
  exit 77
fi

work=$(mktemp -d)
trap '"$lab" down; rm -rf "$work"' EXIT
"$lab" down # what a killed run may have left
"$lab" up 2 none

# collectives HOSTS RANKS: shows what failed
collectives() { "$lab" mpirun "$1" "$2" "$collectives" "$2" shared >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }; }
collectives n0:2,n1:2 4
collectives n0:2,n1:1 3
"$lab" rate 100mbit

tokens=200 hidden=64 layers=2 vocabulary=128
make_model() {
  "$tests/python.sh" "$tests/oracle/random_model.py" "$work/$1" --seed 1 \
    --set expert_groups=4 "residual=$1" "hidden_size=$hidden" "num_hidden_layers=$layers" "vocab_size=$vocabulary"
}
make_model federated
make_model shared
for ((i = 0; i < tokens; i++)); do echo -n "$((i * 37 % vocabulary)),"; done | sed 's/,$/\n/' >"$work/tokens"

# logits MODEL PLAN OUTPUT [LAUNCHER...]
more=() # flags
logits() {
  "${@:4}" "$foe" logits "$work/$1" --tokens "@$work/tokens" --threads 1 --plan "$2" "${more[@]}" --output "$work/$3"
}
nodes=("$lab" mpirun n0:1,n1:1 2)
logits shared tp one
for plan in tp ep pp; do
  logits shared "$plan" two "${nodes[@]}"
  cmp "$work/one" "$work/two"
done
more=(--ep-attention split)
logits shared ep two "${nodes[@]}"
cmp "$work/one" "$work/two"
more=()
logits shared tp three "$lab" mpirun n0:2,n1:1 3
cmp "$work/one" "$work/three"

logits federated foe one
before=$("$lab" bytes n1)
logits federated foe two "${nodes[@]}"
sent=$(($("$lab" bytes n1) - before))

cmp "$work/one" "$work/two"
logits federated foe eight "$lab" mpirun n0:4,n1:4 8
cmp "$work/one" "$work/eight"
# In f32: node n1's part of every token's hidden vector in each of the layers + 1 sums, and its half of the logits.
payload=$((4 * tokens * (hidden * (layers + 1) + vocabulary / 2)))
# 66 bytes of headers on each packet of 1448, and on as many acknowledgements; launching the job takes some 20 KB more.
most=$((payload * 110 / 100 + 65536))
echo "node n1 sent $sent bytes, $payload of them for sums and logits"
[[ $sent -ge $payload && $sent -le $most ]] || { echo "expected $payload to $most bytes" && exit 1; }

# Decoding one token after the other, with foe, ep (its attention split, too) and pp: node n1's bytes are those that its counters say and, for sums,
# passed rows and logits, that the model's placement predicts; foe has as many sums as layers and one more. What is sent besides: a
# little for launching and for the prompt, and headers.
steps=200
# decode MODEL PLAN [FLAGS...]
decode() {
  local model=$tests/../models/$1 before sent
  "$foe" inspect "$model" --plan "$2" "${@:3}" --ranks 2 --nodes 2 --json >"$work/predicted"
  before=$("$lab" bytes n1)
  "${nodes[@]}" "$foe" generate "$model" --plan "$2" "${@:3}" --prompt "It was" --max-tokens $((steps + 1)) --ignore-eos --json \
    >"$work/counted"
  sent=$(($("$lab" bytes n1) - before))
  python3 - "$work" "$steps" "$sent" "$2" <<'END'
import json, sys

work, steps, sent, plan = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
predicted = json.load(open(f"{work}/predicted"))
rank = predicted["ranks"][1]
counted = json.load(open(f"{work}/counted"))["decode_counters_by_rank"][1]
layers = predicted["config"]["num_hidden_layers"]
assert counted["sum"]["calls"] == steps * rank["decode_sums"] == steps * (layers + 1 if plan == "foe" else 0), counted
assert counted["sum"]["node_bytes"] == steps * rank["decode_sum_node_bytes"], (counted, rank)
assert counted["all_to_all"]["calls"] == steps * rank["decode_all_to_alls"], (counted, rank)
for r, own in enumerate(json.load(open(f"{work}/counted"))["decode_counters_by_rank"]):
    assert own["send"]["node_bytes"] == steps * predicted["ranks"][r]["decode_send_node_bytes"], (own, predicted)
collectives = [counted[name] for name in ("sum", "gather", "all_to_all", "send")]
payload = sum(c["node_bytes"] for c in collectives)
packets = 2 * sum(c["messages"] for c in collectives)  # and acknowledgements, in either direction
most = payload + 66 * 2 * packets + payload // 1448 * 66 + 131072
print(f"{plan}: node n1 sent {sent} bytes in {steps} steps, {payload} of them counted")
assert payload <= sent <= most, (payload, sent, most)
END
}
decode foe-8m foe
decode moe-8m ep
decode moe-8m ep --ep-attention split
decode moe-8m pp # node n1's rank is the last one: it sends candidates
