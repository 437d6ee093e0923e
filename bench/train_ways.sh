#!/usr/bin/env bash
# A training step by shards and by groups (docs/training.md): models/foe-8m on two ranks, each with a core of its own, on one node
# and on two nodes with a link between them.
#
#   bench/train_ways.sh OUT [RATE...]     RATE is one of tools/netlab/lab (default: node 1gbit); 2 minutes each on two cores
#
# The tokens are random, with few common ones. Prints, for each way in turn, the median seconds of the steps but the first two, and the
# megabytes that node 0 has sent in the whole run, divided by its steps: with headers, the checkpoint and the evaluation at the end.
# Writes OUT/RATE-WAY-TIME/metrics.jsonl. Needs root for the nodes.
# STEPS (12) and TIMES (3) in the environment change how long it takes.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -eq 0 || $1 == -* ]]; then
  sed -n "2,/^[^#]/s/^# \{0,1\}//p" bench/train_ways.sh >&2
  exit 2
fi
out=$(realpath -m "$1")
shift
rates=("$@")
[[ $# -gt 0 ]] || rates=(node 1gbit)
steps=${STEPS:-12}
lab=tools/netlab/lab
foe=$(realpath build/foe)
mkdir -p "$out/data/tokens" "$out/data/tokenizer"
trap '"$lab" down' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

python3 - "$out/data" <<'END'
import json, random, struct, sys
from pathlib import Path

folder = Path(sys.argv[1])
(folder / "tokenizer/tokenizer.json").write_text("{}")
meta = {"vocab_size": 4096, "end_of_text": 0}
for name, count in (("train", 200_000), ("valid", 2_000)):
    draw = random.Random(name)
    tokens = [min(int(draw.paretovariate(0.6)), 4096) - 1 for _ in range(count)]
    (folder / f"tokens/{name}.u16").write_bytes(struct.pack(f"<{count}H", *tokens))
    meta[name] = {"file": f"{name}.u16", "tokens": count, "bytes": 4 * count}
(folder / "tokens/meta.json").write_text(json.dumps(meta))
END
sed -e "s/^steps = .*/steps = $steps/" -e "s/^warmup_steps = .*/warmup_steps = 2/" -e "s/^decay_steps = .*/decay_steps = 2/" \
  -e "s/^log_every = .*/log_every = 1/" -e "s/^valid_every = .*/valid_every = 1000000/" \
  -e "s/^checkpoint_every = .*/checkpoint_every = 1000000/" models/foe-8m/train.toml >"$out/train.toml"

# run RATE WAY TIME GROUP_RANKS
run() {
  local dir=$out/$1-$2-$3 sent=0
  # shellcheck disable=SC2054 # commas that mpirun wants
  local launcher=(mpirun -n 2 --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca btl self,vader)
  rm -rf "$dir"
  if [[ $1 != node ]]; then
    # shellcheck disable=SC2054
    launcher=("$lab" mpirun n0:1,n1:1 2)
    sent=$("$lab" bytes n0)
  fi
  "${launcher[@]}" "$foe" train "$out/train.toml" --data "$out/data" --run "$dir" --threads 1 --group-ranks "$4" >"$dir.log"
  [[ $1 == node ]] || sent=$(($("$lab" bytes n0) - sent))
  python3 - "$dir" "$1" "$2" "$sent" "$steps" <<'END'
import json, statistics, sys

run, rate, way, sent, steps = sys.argv[1:]
lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
seconds = [4096 / line["tokens_per_s"] for line in lines if "tokens_per_s" in line][2:]
mb = f", {int(sent) / int(steps) / 1e6:.1f} MB a step from n0" if rate != "node" else ""
print(f"{rate}, by {way}: {statistics.median(seconds):.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f}){mb}", flush=True)
END
  sha256sum "$dir/model/model.safetensors" | cut -c1-16 >>"$out/bits"
}

: >"$out/bits"
for rate in "${rates[@]}"; do
  [[ $rate == node ]] || "$lab" up 2 "$rate"
  for ((time = 1; time <= ${TIMES:-3}; time++)); do
    run "$rate" shards "$time" 1
    run "$rate" groups "$time" 2
  done
  [[ $rate == node ]] || "$lab" down
done
[[ $(sort -u "$out/bits" | wc -l) -eq 1 ]] || { echo "bench/train_ways.sh: expected one model of all runs, got several: see $out/bits" >&2; exit 1; }
