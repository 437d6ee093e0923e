#!/usr/bin/env python3
"""Draws what `foe bench latency --json` measured: time of a layer, what it comes down to, and where a layer's time goes.

    tools/plot_latency.py "one node=node.json" "two nodes=lan.json" "two nodes=lan-long.json" --png latency.png

Each TITLE=FILE, or FILE, makes a row of pictures for every load in it; files with the same title are one run. A row has the
times of a layer by the number of tokens (median, and the spread of the passes as a band), federation's time over those of the best
expert parallelism and of tensor parallelism, and the parts of a typical layer at the largest number of tokens.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

PARTS = (("attention_s", "attention"), ("experts_s", "experts"), ("moving_s", "moving data"), ("waiting_s", "waiting"))
LADDER = ["A ep", "A ep per expert", "A ep split", "B tp", "C tp grouped", "D foe"]


def layer_seconds(p: dict) -> float:
    """Of one typical layer. The few layers of a pass are no model: in the last one, rows that are not sampled do not go on."""
    return sum(p["layer"][key] for key, _ in PARTS)


def rungs_of(points: list[dict]) -> list[str]:
    names = {p["rung"] for p in points}
    return [rung for rung in LADDER if rung in names]


def ratios(points: list[dict]) -> dict[int, tuple[float | None, float | None]]:
    """Returns for each number of tokens the time of D over the best A's and the best B's, None where one is missing."""
    result = {}
    for tokens in sorted({p["tokens"] for p in points}):
        seconds = {p["rung"]: layer_seconds(p) for p in points if p["tokens"] == tokens}
        foe = seconds.get("D foe")
        ep, tp = (min((s for rung, s in seconds.items() if rung.startswith(step)), default=None) for step in "AB")
        result[tokens] = (foe / ep if foe and ep else None, foe / tp if foe and tp else None)
    return result


def draw_times(axes, points: list[dict]) -> None:
    for rung in rungs_of(points):
        line = sorted((p for p in points if p["rung"] == rung), key=lambda p: p["tokens"])
        tokens, color = [p["tokens"] for p in line], f"C{LADDER.index(rung)}"
        axes.plot(tokens, [1e3 * layer_seconds(p) for p in line], marker="o", markersize=3, label=rung, color=color)
        low, high = ([1e3 * layer_seconds(p) * p[key] / p["seconds"] for p in line] for key in ("fastest_s", "slowest_s"))
        axes.fill_between(tokens, low, high, alpha=0.2, color=color)
    axes.set(xscale="log", yscale="log", xlabel="tokens in the pass", ylabel="ms of a layer")
    axes.grid(alpha=0.3)


def draw_ratios(axes, points: list[dict]) -> None:
    by_tokens = ratios(points)
    for i, (label, color) in enumerate((("D / best A", "C0"), ("D / B", f"C{LADDER.index('B tp')}"))):
        line = [(tokens, pair[i]) for tokens, pair in by_tokens.items() if pair[i]]
        axes.plot(*zip(*line) if line else ([], []), marker="o", markersize=4, label=label, color=color)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="tokens in the pass", ylabel="time of D / of the other")
    axes.set_ylim(0, max([1.2, *(1.1 * ratio for pair in by_tokens.values() for ratio in pair if ratio)]))
    axes.grid(alpha=0.3)


def draw_parts(axes, points: list[dict]) -> None:
    most = max(p["tokens"] for p in points)
    last = {p["rung"]: p["layer"] for p in points if p["tokens"] == most}
    names = [rung for rung in LADDER if rung in last]
    bottom = [0.0] * len(names)
    for key, label in PARTS:
        values = [1e3 * last[name][key] for name in names]
        axes.bar(names, values, bottom=bottom, label=label)
        bottom = [b + v for b, v in zip(bottom, values)]
    # Between nodes MPI does not tell waiting from moving data; this much of the two is waiting at least.
    exchange = [1e3 * (last[name]["moving_s"] + last[name]["waiting_s"]) for name in names]
    uneven = [min(1e3 * last[name]["uneven_s"], e) for name, e in zip(names, exchange)]
    tops = [b - u for b, u in zip(bottom, uneven)]
    axes.bar(names, uneven, bottom=tops, fill=False, hatch="///", linewidth=0, label="for the slowest rank")
    axes.set(ylabel=f"ms of one layer, {most} tokens")
    axes.tick_params(axis="x", rotation=20, labelsize=7)


def size(count: float) -> str:
    return f"{count / 1e6:.3g} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB"


def markdown(title: str, points: list[dict]) -> str:
    """A row for each load and number of tokens: each rung's time of a layer, spread of the pass, bytes per layer; ratios."""
    rungs = rungs_of(points)
    lines = [f"| {title} | " + " | ".join(rungs) + " | D / best A | D / B |", "|---|" + "---|" * (len(rungs) + 2)]
    for load in dict.fromkeys(p["load"] for p in points):
        of_load = [p for p in points if p["load"] == load]
        for tokens, pair in ratios(of_load).items():
            by_rung = {p["rung"]: p for p in of_load if p["tokens"] == tokens}
            cells = []
            for rung in rungs:
                if not (p := by_rung.get(rung)):
                    cells.append("–")
                    continue
                spread = f"{100 * (p['slowest_s'] - p['fastest_s']) / p['seconds']:.0f} %" if p["repetitions"] > 1 else "once"
                cells.append(f"{1e3 * layer_seconds(p):.2f} ({spread}), {size(p['layer']['bytes'])}")
            cells += [f"{ratio:.2f}" if ratio else "–" for ratio in pair]
            lines.append(f"| {load}, {tokens} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="TITLE=FILE", help="JSON of `foe bench latency`, and the title of its row")
    parser.add_argument("--png", type=Path, required=True, help="picture to write")
    parser.add_argument("--markdown", action="store_true", help="also print tables: milliseconds of a layer (spread of the pass), bytes sent")
    flags = parser.parse_args()
    runs: dict[str, list[dict]] = {}
    for run in flags.runs:
        title, _, path = run.rpartition("=")
        data = json.loads(Path(path).read_text("utf-8"))
        runs.setdefault(title or f"{data['shape']}, {data['ranks']} ranks", []).extend(data["points"])
    if flags.markdown:
        for title, points in runs.items():
            print(markdown(title, points))
    rows = [
        (title, load, [p for p in points if p["load"] == load])
        for title, points in runs.items()
        for load in dict.fromkeys(p["load"] for p in points)
    ]
    figure, grid = plt.subplots(len(rows), 3, figsize=(13, 3.2 * len(rows)), squeeze=False, constrained_layout=True)
    for axes, (title, load, points) in zip(grid, rows):
        for draw, panel in zip((draw_times, draw_ratios, draw_parts), axes):
            draw(panel, points)
        axes[0].set_title(f"{title}: {load}", fontsize=9)
    for panel in grid[0]:
        panel.legend(fontsize=7)
    figure.savefig(flags.png, dpi=110)


if __name__ == "__main__":
    main()
