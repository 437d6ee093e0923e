#!/usr/bin/env bash
# The ladder from expert parallelism to federation (docs/lab/2026-11-25-ladder.md): two ranks on one node, and on two nodes with
# a link of 1 Gbit/s and of 100 Mbit/s between them, each rank with a core of its own.
#
#   bench/plans.sh OUT [PART...]
#
#   quick    a point or two of everything              2 minutes
#   1b       the paper's 1B shape, to 8,192 tokens    12
#   long     the same, 24,576 tokens, once per rung   12
#   7b       the paper's 7B shape, to 2,048 tokens     7
#   skew     routing that fills one rank of ep         2
#   shipped  models/foe-8m and models/moe-8m           1
#   full     all of these but quick                   34
#   7b-long  the 7B shape with 24,576 tokens           6; on one node only, and not part of full
#
# Minutes are estimates for 2 cores that reach 60 GFLOP/s each. Without a PART: quick. Flags of `foe bench latency`
# in FOE_BENCH_FLAGS go with every run (--wire int8).
# Writes OUT/*.json, which tools/plot_latency.py draws. Needs root for the nodes (tools/netlab/lab).
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -eq 0 || $1 == -* ]]; then
  sed -n "2,/^[^#]/s/^# \{0,1\}//p" bench/plans.sh >&2
  exit 2
fi
out=$(realpath -m "$1")
lab=tools/netlab/lab
foe=$(realpath build/foe)
mkdir -p "$out"
trap '"$lab" down' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# measure NETWORK NAME FLAGS...
measure() {
  # shellcheck disable=SC2054 # commas that mpirun wants
  local launcher=(mpirun -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl self,vader)
  # shellcheck disable=SC2054
  [[ $1 == node ]] || launcher=("$lab" mpirun n0:1,n1:1 2)
  echo "== $1, $2"
  # shellcheck disable=SC2086 # several words
  "${launcher[@]}" "$foe" bench latency --threads 1 "${@:3}" ${FOE_BENCH_FLAGS:-} --json "$out/$1-$2.json"
}

# shellcheck disable=SC2054
prefill=(--loads one-prompt,many-prompts) decode=(--loads decode)
no_straw_man=(--rungs "A ep,A ep split,B tp,C tp grouped,D foe") # a row per expert takes minutes over a slow link

# run PART NETWORK
run() {
  case $1 in
  quick)
    measure "$2" quick-prefill "${prefill[@]}" --tokens 512 --repetitions 2 --most-seconds 1.5
    measure "$2" quick-decode "${decode[@]}" --tokens 1,8 --repetitions 8 --most-seconds 1
    [[ $2 == node ]] || return 0
    measure "$2" quick-skew --loads many-prompts --tokens 512 --repetitions 2 --most-seconds 1 --skew 1.64
    measure "$2" quick-shipped "${decode[@]}" --tokens 8 --shape models/foe-8m --repetitions 4 --most-seconds 0.5
    ;;
  1b)
    measure "$2" 1b-prefill "${prefill[@]}" --tokens 1,8,64,512,2048,8192 --most-seconds 6
    measure "$2" 1b-decode "${decode[@]}" --tokens 1,8,64,256 --repetitions 15 --most-seconds 5
    ;;
  long) measure "$2" 1b-long "${prefill[@]}" --tokens 24576 --most-seconds 0 "${no_straw_man[@]}" ;;
  7b)
    measure "$2" 7b-prefill --shape paper-7b "${prefill[@]}" --tokens 512,2048 --most-seconds 4 "${no_straw_man[@]}"
    measure "$2" 7b-decode --shape paper-7b "${decode[@]}" --tokens 1,8,64 --most-seconds 3
    ;;
  skew)
    measure "$2" skew-prefill --loads many-prompts --tokens 2048 --most-seconds 4 --skew 1.64
    measure "$2" skew-decode "${decode[@]}" --tokens 8,64 --repetitions 15 --most-seconds 3 --skew 1.64
    ;;
  shipped)
    for model in foe-8m moe-8m; do
      measure "$2" "$model" --shape "models/$model" --loads many-prompts,decode --tokens 8,64 --most-seconds 1
    done
    ;;
  7b-long)
    [[ $2 != node ]] || measure "$2" 7b-long --shape paper-7b --loads one-prompt --tokens 24576 --most-seconds 0 \
      "${no_straw_man[@]}"
    ;;
  *) echo "plans.sh: expected one of the parts that ${0##*/} lists without arguments, got '$1'" >&2 && exit 2 ;;
  esac
}

parts=("${@:2}")
[[ ${#parts[@]} -gt 0 ]] || parts=(quick)
[[ ${parts[*]} != full ]] || parts=(1b long 7b skew shipped)
"$lab" down # what a killed run may have left
for network in node 1gbit 100mbit; do
  case $network in
  1gbit) "$lab" up 2 1gbit ;;
  100mbit) "$lab" rate 100mbit ;;
  esac
  for part in "${parts[@]}"; do run "$part" "$network"; done
done
