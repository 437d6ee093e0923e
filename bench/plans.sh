#!/usr/bin/env bash
# The ladder from expert parallelism to federation (docs/measurements/plans.md): two ranks on one node, and on two nodes with
# a link of 1 Gbit/s and of 100 Mbit/s between them, each rank with a core of its own.
#
#   bench/plans.sh OUT            a quick one, minutes
#   bench/plans.sh OUT full       up to 24,576 tokens
#
# Writes OUT/*.json; tools/plot_latency.py draws them. Needs root for the nodes (tools/netlab/lab).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?where to write}")
lab=tools/netlab/lab
foe=$(realpath build/foe)
mkdir -p "$out"
trap '"$lab" down' EXIT

prompts=512 decodes=1,8
[[ ${2:-} == full ]] && prompts=1,8,64,512,2048,8192,24576 decodes=1,8,64,256

# ladder NAME LAUNCHER...
ladder() {
  local latency=("$foe" bench latency --shape paper-1b --layers 3 --threads 1)
  "${@:2}" "${latency[@]}" --loads one-prompt,many-prompts --tokens "$prompts" --json "$out/$1-prefill.json"
  "${@:2}" "${latency[@]}" --loads decode --tokens "$decodes" --repetitions 15 --json "$out/$1-decode.json"
}

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
ladder node mpirun -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl self,vader
"$lab" down
"$lab" up 2 1gbit
ladder 1gbit "$lab" mpirun n0:1,n1:1 2
"$lab" rate 100mbit
ladder 100mbit "$lab" mpirun n0:1,n1:1 2
