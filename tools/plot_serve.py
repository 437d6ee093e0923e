#!/usr/bin/env python3
"""Draws what `foe bench serve --save-result` measured at several rates: latencies, and throughput and goodput, by rate.

    tools/plot_serve.py "foe=results/foe-*qps-*.json" "ep=results/ep-*qps-*.json" --png serve.png

Each TITLE=FILES, FILES being a path or a pattern, is a line in every picture. A file may have several results (`--append-result`).
Files of `vllm bench serve` have the same keys, and can stand beside foe's. Runs at an infinite rate have no place on the axis, and are left out.
"""

import argparse
import glob
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

LATENCIES = (("ttft", "time to first token"), ("tpot", "time per output token"), ("e2el", "end-to-end latency"))


def results(path: str) -> list[dict]:
    """Returns what a file has, one result after the other."""
    text, found = Path(path).read_text("utf-8").strip(), []
    while text:
        result, end = json.JSONDecoder().raw_decode(text)
        found.append(result)
        text = text[end:].lstrip()
    return found


def load(pattern: str) -> list[dict]:
    """Returns the runs in order of their rates."""
    paths = sorted(glob.glob(pattern))
    if not paths:
        raise SystemExit(f"plot_serve: expected files that match {pattern}, found none")
    runs = [run for path in paths for run in results(path)]
    return sorted((run for run in runs if run["request_rate"] != "inf"), key=lambda run: run["request_rate"])


def draw_latency(axes, runs: list[dict], metric: str, title: str, color: str) -> None:
    for figure, style, label in (("median", "-", f"{title}, p50"), ("p99", "--", f"{title}, p99")):
        # At a rate where nothing was answered there is no latency.
        line = [(run["request_rate"], run.get(f"{figure}_{metric}_ms")) for run in runs if run["completed"] > 0]
        line = [(rate, ms) for rate, ms in line if ms is not None]
        axes.plot(*zip(*line) if line else ([], []), style, marker="o", markersize=3, color=color, label=label)


def draw_throughput(axes, runs: list[dict], title: str, color: str) -> None:
    rates = [run["request_rate"] for run in runs]
    axes.plot(rates, [run["request_throughput"] for run in runs], "-", marker="o", markersize=3, color=color,
              label=f"{title}, answered")
    if any(run.get("request_goodput") is not None for run in runs):
        good = [run.get("request_goodput") or 0 for run in runs]
        axes.plot(rates, good, "--", marker="o", markersize=3, color=color, label=f"{title}, good")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="TITLE=FILES", help="JSON of `foe bench serve`, and the line's title")
    parser.add_argument("--png", type=Path, required=True, help="picture to write")
    flags = parser.parse_args()
    figure, panels = plt.subplots(1, 4, figsize=(16, 3.6), constrained_layout=True)
    rates = set()
    for i, argument in enumerate(flags.runs):
        title, _, pattern = argument.rpartition("=")
        runs, color = load(pattern), f"C{i}"
        rates |= {run["request_rate"] for run in runs}
        title = title or (runs[0]["model_id"] if runs else pattern)
        for axes, (metric, _) in zip(panels, LATENCIES):
            draw_latency(axes, runs, metric, title, color)
        draw_throughput(panels[3], runs, title, color)
    for axes, (_, name) in zip(panels, LATENCIES):
        axes.set(xscale="log", yscale="log", xlabel="requests per second", ylabel=f"{name}, ms")
    ends = [min(rates), max(rates)] if rates else []
    panels[3].plot(ends, ends, color="black", linewidth=0.8, label="all that were sent")
    panels[3].set(xscale="log", yscale="log", xlabel="requests per second", ylabel="answers per second")
    for axes in panels:
        axes.set_xticks(sorted(rates), [f"{rate:.4g}" for rate in sorted(rates)], rotation=45)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=6)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(flags.png, dpi=110)


if __name__ == "__main__":
    main()
