#!/usr/bin/env python3
"""The analysis of docs/foe_study.md: reads study/results, prints the tables and draws the curves.

    tools/study_analysis.py                                    # tables, as Markdown
    tools/study_analysis.py --png docs/lab/DATE-study          # and DATE-study-1m.png, ... (needs matplotlib)

Written before the runs. An arm is compared with `moe` seed by seed: the difference of the losses on the held-out novel, in
nats per token, of runs with the same seed (of data order and initialisation). Runs whose partner is missing are left out,
and counted.
"""

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = "moe"
MARGIN = 0.02  # nats per token: what is inside is called equal

# Quantiles of Student's t distribution by degrees of freedom 1, 2, ...: 0.95 and 0.975.
T_95 = (6.3138, 2.9200, 2.3534, 2.1318, 2.0150, 1.9432, 1.8946, 1.8595, 1.8331, 1.8125, 1.7959, 1.7823, 1.7709, 1.7613, 1.7531)
T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314)


def interval(values: list[float], quantiles: tuple[float, ...]) -> tuple[float, float]:
    """Of the mean, by the t distribution; without an end for less than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    mean = statistics.fmean(values)
    half = quantiles[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def verdict(differences: list[float]) -> str:
    """What the rules that were written down allow to say. Lower is better."""
    low, high = interval(differences, T_975)
    inner_low, inner_high = interval(differences, T_95)  # two one-sided tests at 5 %
    if -MARGIN < inner_low and inner_high < MARGIN:
        return "equal within the margin"
    if high < 0:
        return "better"
    if low > 0:
        return "worse"
    return "undecided"


def load(folder: Path) -> list[dict]:
    results = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    for key in ("tokens_sha256",):
        if len({json.dumps(r[key], sort_keys=True) for r in results}) > 1:
            sys.exit(f"study_analysis: {folder}: expected runs on one corpus, got several {key}")
    return results


def by_size(results: list[dict]) -> dict[str, dict[str, dict[int, dict]]]:
    """size -> arm -> seed -> result."""
    table: dict[str, dict[str, dict[int, dict]]] = defaultdict(lambda: defaultdict(dict))
    for r in results:
        table[r["size"]][r["arm"]][r["seed"]] = r
    return table


def mean_of(results: dict[int, dict], value) -> float:
    return statistics.fmean(value(r) for r in results.values())


def print_size(size: str, arms: dict[str, dict[int, dict]]) -> None:
    base = arms.get(BASELINE, {})
    print(f"\n### {size}\n")
    print("| arm | seeds | held-out loss | less moe's | 95 % interval | verdict | balance loss | gradient norm, median and p99 | tokens/s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for arm, runs in arms.items():
        pairs = sorted(set(runs) & set(base))
        differences = [runs[seed]["held_out_nats"] - base[seed]["held_out_nats"] for seed in pairs]
        compared = ("", "", "baseline" if arm == BASELINE else "no pairs")
        if arm != BASELINE and pairs:
            low, high = interval(differences, T_975)
            compared = (f"{statistics.fmean(differences):+.4f}", f"{low:+.4f} to {high:+.4f}", verdict(differences))
        alone = f" ({len(runs) - len(pairs)} without a partner)" if len(runs) != len(pairs) else ""
        print(f"| {arm} | {len(runs)}{alone} | {mean_of(runs, lambda r: r['held_out_nats']):.4f} | {' | '.join(compared)} | "
              f"{mean_of(runs, lambda r: r['balance_loss']):.4f} | {mean_of(runs, lambda r: r['grad_norm']['median']):.3f}, "
              f"{mean_of(runs, lambda r: r['grad_norm']['p99']):.3f} | {mean_of(runs, lambda r: r['tokens_per_s']):.0f} |")  # fmt: skip
    spread = [r["held_out_nats"] for r in base.values()]
    if len(spread) > 1:
        print(f"\nTwo seeds of {BASELINE} differ by a standard deviation of {statistics.stdev(spread):.4f} nats.")


def draw(size: str, arms: dict[str, dict[int, dict]], path: Path) -> None:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for arm, runs in arms.items():
        curves = [[(t, v) for t, v in r["curve"][:-1]] for r in runs.values()]  # the last one is of the whole novel
        shortest = min(map(len, curves))
        tokens = [t / 1e6 for t, _ in curves[0][:shortest]]
        means = [statistics.fmean(c[i][1] for c in curves) for i in range(shortest)]
        (line,) = axes.plot(tokens, means, label=f"{arm} ({len(runs)})", linewidth=1.2)
        low = [min(c[i][1] for c in curves) for i in range(shortest)]
        high = [max(c[i][1] for c in curves) for i in range(shortest)]
        axes.fill_between(tokens, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("million tokens")
    axes.set_ylabel("held-out loss, nats per token")
    axes.set_title(f"{size}: mean and range over seeds")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "study/results", help="(default: %(default)s)")
    parser.add_argument("--png", help="beginning of the pictures' names")
    arguments = parser.parse_args()
    results = load(arguments.results)
    if not results:
        sys.exit(f"study_analysis: {arguments.results}: expected results of tools/study.py, got none")
    for size, arms in by_size(results).items():
        print_size(size, arms)
        if arguments.png:
            draw(size, arms, Path(f"{arguments.png}-{size}.png"))


if __name__ == "__main__":
    main()
