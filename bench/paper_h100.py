#!/usr/bin/env python3
"""Predicts the FoE paper's forward passes (arXiv 2605.06206, section 4: 8 x H100, seconds by tokens of one batch) with
`foe simulate`, from speeds that are fitted on the paper's MoE column alone. Needs nothing but Python and foe.

    bench/paper_h100.py [build/foe] [--json OUT]

The links are the manufacturer's. Three numbers are fitted: what a block takes besides (block_us), and the speeds of
products and of attention. They are found by coordinate descent over the mean of the squared logarithm of
simulated / published. FoE's column is not looked at."""

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path

PAPER = {1: (.0611, .0585), 128: (.0689, .0683), 512: (.0755, .0778), 1024: (.0749, .0810), 2048: (.0886, .0683),
         4096: (.165, .0757), 8192: (.464, .129), 12288: (.978, .218), 16384: (1.642, .336), 24576: (3.486, .669)}

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
    values = {"products": 2e5, "attention": 1e4, "block_us": 1500}
    best = error(simulate(foe, values, "A ep", shape), 0)
    step = 2.0
    while step > 1.005:
        improved = False
        for key in values:
            for factor in (step, 1 / step):
                tried = {**values, key: values[key] * factor}
                if key != "block_us" and tried[key] > 9e5:  # beyond what an H100 computes
                    continue
                if (now := error(simulate(foe, tried, "A ep", shape), 0)) < best:
                    values, best, improved = tried, now, True
        if not improved:
            step = math.sqrt(step)
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("foe", nargs="?", default="build/foe")
    parser.add_argument("--shape", default="paper-7b")
    parser.add_argument("--json")
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


if __name__ == "__main__":
    main()
