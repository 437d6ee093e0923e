#!/usr/bin/env python3
"""Predicts the FoE paper's forward passes (arXiv 2605.06206, section 4: 8 x H100, seconds by tokens of one batch) with
`foe simulate`, from speeds that are fitted on the paper's MoE column alone. Needs nothing but Python and foe.

    bench/paper_h100.py [build/foe] [--json OUT]

The links are the manufacturer's. Three numbers are fitted: what a block takes besides (block_us), and the speeds of
products and of attention. They are found by coordinate descent over the mean of the squared logarithm of
simulated / published. FoE's column is not looked at.

With --serving also the serving table (mean TTFT and TBT, one node): 1,000 requests of --preset paper. One more number is
fitted on the MoE rows: what rank 0 takes for each sequence of a step (row_us)."""

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path

PAPER = {1: (.0611, .0585), 128: (.0689, .0683), 512: (.0755, .0778), 1024: (.0749, .0810), 2048: (.0886, .0683),
         4096: (.165, .0757), 8192: (.464, .129), 12288: (.978, .218), 16384: (1.642, .336), 24576: (3.486, .669)}

# By the mean gap between requests: seconds of MoE's and of FoE's mean TTFT and TBT.
SERVING = {0.5: ((3.710, .780), (1.394, .566)), 0.75: ((3.233, .841), (1.041, .458)),
           1.5: ((2.264, .371), (.790, .334))}

CLUSTER = """name = "8 H100, fitted on the paper's MoE column"
devices = 8
devices_per_node = 8
[device]
memory_gb_per_s = 3350
projections_gflops = {products}
router_gflops = {products}
experts_gflops = {products}
head_gflops = {products}
attention_gflops = {attention}
activations_gfloats_per_s = 800
block_us = {block_us}
[links.node]
latency_us = 3
gbit_per_s = 3600
[collectives]
sum = "ring"
sum_us = 20
all_to_all_us = 20
[engine]
row_us = {row_us}
"""


def simulate(foe, values, rung, shape):
    """Seconds of the layers by tokens."""
    with tempfile.TemporaryDirectory() as folder:
        cluster, out = Path(folder, "cluster.toml"), Path(folder, "out.json")
        cluster.write_text(CLUSTER.format(**values), encoding="utf-8")
        subprocess.run([foe, "simulate", "latency", "--cluster", cluster, "--shape", shape, "--ranks", "8", "--rungs",
                        rung, "--loads", "one-prompt", "--tokens", ",".join(map(str, PAPER)), "--json", out],
                       check=True, stdout=subprocess.DEVNULL)
        return {p["tokens"]: p["seconds"] for p in json.loads(out.read_text(encoding="utf-8"))["points"]}


def error(simulated, column):
    """The root of the mean squared logarithm of simulated / published."""
    return math.sqrt(sum(math.log(simulated[n] / PAPER[n][column]) ** 2 for n in PAPER) / len(PAPER))


def fit(foe, shape):
    values = {"products": 2e5, "attention": 1e4, "block_us": 1500, "row_us": 0}
    best = error(simulate(foe, values, "A ep", shape), 0)
    step = 2.0
    while step > 1.005:
        improved = False
        for key in ("products", "attention", "block_us"):
            for factor in (step, 1 / step):
                tried = {**values, key: values[key] * factor}
                if key != "block_us" and tried[key] > 9e5:  # beyond what an H100 computes
                    continue
                if (now := error(simulate(foe, tried, "A ep", shape), 0)) < best:
                    values, best, improved = tried, now, True
        if not improved:
            step = math.sqrt(step)
    return values


def serve(foe, values, plan, gap, shape):
    """Mean TTFT and TBT in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        cluster, out = Path(folder, "cluster.toml"), Path(folder, "out.json")
        cluster.write_text(CLUSTER.format(**values), encoding="utf-8")
        subprocess.run([foe, "simulate", "serve", "--cluster", cluster, "--shape", shape, "--ranks", "8", "--plan", plan,
                        "--preset", "paper", "--gap", str(gap), "--num-prompts", "1000", "--max-sequences", "1024",
                        "--chunk", "16384", "--kv-tokens", "8000000", "--json", out], check=True,
                       stdout=subprocess.DEVNULL)
        run = json.loads(out.read_text(encoding="utf-8"))[0]
        return run["mean_ttft_ms"] / 1e3, run["mean_tpot_ms"] / 1e3


def serving(foe, values, shape):
    tried = {}
    for row_us in (0, 250, 500, 750, 1000, 1250, 1500):
        runs = {gap: serve(foe, {**values, "row_us": row_us}, "ep", gap, shape) for gap in SERVING}
        tried[row_us] = (sum(math.log(runs[gap][i] / SERVING[gap][0][i]) ** 2 for gap in runs for i in (0, 1)), runs)
    row_us = min(tried, key=lambda key: tried[key][0])
    print(f"\nserving: fitted on MoE: row_us {row_us}\n{'gap':>5} {'':>4} {'MoE':>7} {'fitted':>7} {'FoE':>7}"
          f" {'predicted':>9} {'ratio':>6} {'predicted':>9}")
    for gap, published in SERVING.items():
        ep, federated = tried[row_us][1][gap], serve(foe, {**values, "row_us": row_us}, "foe", gap, shape)
        for i, name in enumerate(("TTFT", "TBT")):
            print(f"{gap:>5} {name:>4} {published[0][i]:>7.3f} {ep[i]:>7.3f} {published[1][i]:>7.3f}"
                  f" {federated[i]:>9.3f} {published[0][i] / published[1][i]:>6.2f} {ep[i] / federated[i]:>9.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("foe", nargs="?", default="build/foe")
    parser.add_argument("--shape", default="paper-7b")
    parser.add_argument("--json")
    parser.add_argument("--serving", action="store_true")
    options = parser.parse_args()
    values = fit(options.foe, options.shape)
    print("fitted on MoE:", ", ".join(f"{key} {value:.4g}" for key, value in values.items()))
    columns = [simulate(options.foe, values, rung, options.shape) for rung in ("A ep", "D foe", "A ep split", "B tp")]
    print(f"{'tokens':>7} {'MoE':>8} {'fitted':>8} {'':>6} {'FoE':>8} {'predicted':>9} {'':>6} {'ratio':>6}"
          f" {'predicted':>9} {'ep split / foe':>15} {'tp / foe':>9}")
    for n, (moe, foe) in PAPER.items():
        ep, federated, split, tp = (column[n] for column in columns)
        print(f"{n:>7} {moe:>8.4f} {ep:>8.4f} {100 * (ep / moe - 1):>+5.0f}% {foe:>8.4f} {federated:>9.4f}"
              f" {100 * (federated / foe - 1):>+5.0f}% {moe / foe:>6.2f} {ep / federated:>9.2f} {split / federated:>15.2f}"
              f" {tp / federated:>9.2f}")
    print(f"error (root of mean squared logarithm): MoE {error(columns[0], 0):.3f}, FoE {error(columns[1], 1):.3f}")
    if options.json:
        Path(options.json).write_text(json.dumps({"fitted": values, "published": PAPER, "simulated": dict(
            zip(("ep", "foe", "ep split", "tp"), columns))}, indent=1), encoding="utf-8")
    if options.serving:
        serving(options.foe, values, options.shape)


if __name__ == "__main__":
    main()
