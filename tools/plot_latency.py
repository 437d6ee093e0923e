#!/usr/bin/env python3
"""Draws what `foe bench latency --json` measured: time of a pass against its tokens, and where a layer's time goes.

    tools/plot_latency.py one-node.json two-nodes=lan.json --png latency.png

A file, or TITLE=FILE, makes a row of pictures: a panel for each load with a line for each rung (median, and the spread as a
band), and bars of a typical layer's parts at the largest number of tokens.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

PARTS = (("attention_s", "attention"), ("experts_s", "experts"), ("moving_s", "moving data"), ("waiting_s", "waiting"))


def draw_lines(axes, points: list[dict], rungs: list[str]) -> None:
    for i, rung in enumerate(rungs):
        line = [p for p in points if p["rung"] == rung]
        tokens = [p["tokens"] for p in line]
        axes.plot(tokens, [1e3 * p["seconds"] for p in line], marker="o", markersize=3, label=rung, color=f"C{i}")
        axes.fill_between(
            tokens, [1e3 * p["fastest_s"] for p in line], [1e3 * p["slowest_s"] for p in line], alpha=0.2, color=f"C{i}"
        )
    axes.set(xscale="log", yscale="log", xlabel="tokens in the pass", ylabel="ms")
    axes.grid(alpha=0.3)


def draw_parts(axes, points: list[dict], rungs: list[str]) -> None:
    most = max(p["tokens"] for p in points)
    last = {p["rung"]: p["layer"] for p in points if p["tokens"] == most}
    names = [rung for rung in rungs if rung in last]
    bottom = [0.0] * len(names)
    for key, label in PARTS:
        values = [1e3 * last[name][key] for name in names]
        axes.bar(names, values, bottom=bottom, label=label)
        bottom = [b + v for b, v in zip(bottom, values)]
    axes.set(ylabel=f"ms of one layer, {most} tokens")
    axes.tick_params(axis="x", rotation=20, labelsize=7)


def markdown(title: str, points: list[dict]) -> str:
    """A row for each load and number of tokens, with every rung's time, relative spread, and bytes per layer."""
    rungs = list(dict.fromkeys(p["rung"] for p in points))
    lines = [
        f"| {title} | " + " | ".join(rungs) + " |",
        "|---|" + "---|" * len(rungs),
    ]
    rows: dict[tuple, dict] = {}
    for p in points:
        rows.setdefault((p["load"], p["tokens"]), {})[p["rung"]] = p
    for (load, tokens), by_rung in rows.items():
        cells = []
        for rung in rungs:
            p = by_rung[rung]
            layer = sum(p["layer"][key] for key, _ in PARTS)
            spread = 100 * (p["slowest_s"] - p["fastest_s"]) / p["seconds"]
            cells.append(f"{1e3 * layer:.2f} ({spread:.0f} %), {p['layer']['bytes'] / 1e3:.4g} kB")
        lines.append(f"| {load}, {tokens} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="FILE or TITLE=FILE")
    parser.add_argument("--png", type=Path, required=True)
    parser.add_argument("--markdown", action="store_true", help="print tables: ms of a layer (spread of the pass), kB sent")
    flags = parser.parse_args()
    runs = []
    for run in flags.runs:
        title, _, path = run.rpartition("=")
        data = json.loads(Path(path).read_text("utf-8"))
        runs.append((title or f"{data['shape']}, {data['ranks']} ranks", data["points"]))
    if flags.markdown:
        for title, points in runs:
            print(markdown(title, points))
    loads = sorted({p["load"] for _, points in runs for p in points})
    figure, grid = plt.subplots(
        len(runs), 2 * len(loads), figsize=(8 * len(loads), 3.6 * len(runs)), squeeze=False, constrained_layout=True
    )
    for row, (title, points) in zip(grid, runs):
        rungs = list(dict.fromkeys(p["rung"] for p in points))
        for i, load in enumerate(loads):
            of_load = [p for p in points if p["load"] == load]
            if not of_load:
                continue
            draw_lines(row[2 * i], of_load, rungs)
            draw_parts(row[2 * i + 1], of_load, rungs)
            row[2 * i].set_title(f"{title}: {load}", fontsize=9)
    grid[0][0].legend(fontsize=7)
    grid[0][1].legend(fontsize=7)
    figure.savefig(flags.png, dpi=110)


if __name__ == "__main__":
    main()
