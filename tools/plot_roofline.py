#!/usr/bin/env python3
"""Draws what `foe bench kernels --json` measured under the roofs of the machine.

    tools/plot_roofline.py qwen3-moe-24l.json olmoe.json --png speed.png

Each file makes one picture for every format in it: operations per second of each kernel by operations per byte of weights, as the
number of rows grows along a line, under what memory's reading speed and the arithmetic's peak, both measured in the same run, allow.
Integer formats have the peak of 8-bit dot products, the others that of f32.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import NullFormatter  # noqa: E402


def draw(axes, run: dict, form: str) -> None:
    integer = form.startswith("int")
    bandwidth, peak = run["read_bytes_per_second"], run["dots_per_second" if integer else "flops_per_second"]
    points = [p for p in run["points"] if p["format"] == form]
    intensity = {id(p): p["operations"] / p["bytes"] for p in points}
    ends = [min(intensity.values()) / 1.5, max(intensity.values()) * 1.5]
    roof = [ends[0], peak / bandwidth, ends[1]]
    axes.plot(roof, [min(peak, bandwidth * x) / 1e9 for x in roof], color="black", linewidth=1,
              label=f"{bandwidth / 1e9:.0f} GB/s, {peak / 1e9:.0f} G{'op' if integer else 'FLOP'}/s")
    for name in dict.fromkeys(p["kernel"] for p in points):
        line = sorted((p for p in points if p["kernel"] == name), key=lambda p: p["tokens"])
        axes.plot([intensity[id(p)] for p in line], [p["operations"] / p["seconds"] / 1e9 for p in line], marker="o", markersize=3,
                  label=name)
        for p in line:
            if name == "experts":
                axes.annotate(p["tokens"], (intensity[id(p)], p["operations"] / p["seconds"] / 1e9), fontsize=6,
                              xytext=(3, -8), textcoords="offset points")
    axes.set(xscale="log", yscale="log", title=f"{run['shape']}, {form}", xlabel="operations per byte of weights")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_yticks([20, 50, 100, 200])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="JSON of `foe bench kernels`")
    parser.add_argument("--png", type=Path, required=True, help="picture to write")
    flags = parser.parse_args()
    runs = [json.loads(file.read_text("utf-8")) for file in flags.files]
    formats = [list(dict.fromkeys(p["format"] for p in run["points"])) for run in runs]
    columns = max(map(len, formats))
    figure, all_axes = plt.subplots(len(runs), columns, figsize=(4.2 * columns, 3.6 * len(runs)), squeeze=False)
    for run, names, row in zip(runs, formats, all_axes):
        for name, axes in zip(names, row):
            draw(axes, run, name)
        for axes in row[len(names):]:
            axes.set_axis_off()
        row[0].set_ylabel("Gop/s")
    figure.tight_layout()
    figure.savefig(flags.png, dpi=110)


if __name__ == "__main__":
    main()
