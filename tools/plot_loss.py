#!/usr/bin/env python3
"""Draws the loss curves of training runs, and exports them as CSV.

    tools/plot_loss.py foe=runs/foe/metrics.jsonl moe=runs/moe/metrics.jsonl --png loss.png
    tools/plot_loss.py models/foe/loss.csv --csv copy.csv

A run is a file, or NAME=FILE: the metrics.jsonl that `foe train` writes, or a CSV written here (columns step, tokens,
train_loss, valid_loss, valid_bits_per_byte; a field is empty where nothing was measured). A run that was killed and
resumed logs some steps twice: the later line counts. Losses are in nats per token; the training loss is drawn as a mean
over the last --smooth points. --csv takes one run.
"""

import argparse
import csv
import json
from pathlib import Path

COLUMNS = ("step", "tokens", "train_loss", "valid_loss", "valid_bits_per_byte")
JSON_NAMES = {"loss": "train_loss"}  # what differs between metrics.jsonl and the CSV
Row = dict[str, float | None]


def read_lines(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    lines = path.read_text("utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append({JSON_NAMES.get(key, key): value for key, value in json.loads(line).items()})
        except (json.JSONDecodeError, AttributeError):
            if number != len(lines):  # a run that is being written, or was killed, may end within a line
                raise SystemExit(f"plot_loss: {path}:{number}: expected a JSON object, found {line[:60]!r}") from None
    return rows


def read_run(path: Path) -> list[Row]:
    """One row a step, in order; a step's training and validation lines are merged."""
    steps: dict[int, Row] = {}
    for line in read_lines(path):
        if "step" not in line or "tokens" not in line:
            raise SystemExit(f"plot_loss: {path}: expected step and tokens on each line, found {sorted(line)}")
        row = steps.setdefault(int(line["step"]), dict.fromkeys(COLUMNS))
        row.update({column: line[column] for column in COLUMNS if column in line})
    return [steps[step] for step in sorted(steps)]


def write_csv(rows: list[Row], path: Path) -> None:
    def field(column: str, value: float | None) -> str:
        if value is None:
            return ""
        return str(int(value)) if column in ("step", "tokens") else f"{value:.6g}"

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([field(column, row[column]) for column in COLUMNS] for row in rows)


def series(rows: list[Row], column: str) -> tuple[list[float], list[float]]:
    points = [(row["tokens"], row[column]) for row in rows if row[column] is not None]
    return [tokens for tokens, _ in points], [value for _, value in points]


def smooth(values: list[float], width: int) -> list[float]:
    windows = (values[max(0, i + 1 - width) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def plot(runs: dict[str, list[Row]], path: Path, width: int, lines: dict[str, float], title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    lowest, start = [], []
    for i, (name, rows) in enumerate(runs.items()):
        tokens, losses = series(rows, "train_loss")
        axes.plot(tokens, smooth(losses, width), color=f"C{i}", linewidth=1, alpha=0.6, label=f"{name}, training")
        start += losses[:1]
        lowest += losses
        tokens, losses = series(rows, "valid_loss")
        last = f" (last {losses[-1]:.3f})" if losses else ""
        axes.plot(tokens, losses, color=f"C{i}", marker="o", markersize=4, label=f"{name}, validation{last}")
        lowest += losses
    for i, (name, value) in enumerate(lines.items()):
        axes.axhline(value, color="0.4", linestyle=("--", ":", "-.")[i % 3], linewidth=1, label=f"{name} ({value:.3f})")
        lowest.append(value)
    if lowest:
        # The first steps fall from ln(vocabulary) at once; showing all of that would flatten what comes after.
        axes.set_ylim(min(lowest) - 0.1, min(max(start, default=max(lowest)), min(lowest) + 3.5) + 0.1)
    axes.set_xlabel("training tokens")
    axes.set_ylabel("loss, nats per token")
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(title)
    figure.savefig(path, dpi=120)


def named(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    return (name, value) if separator else ("", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]FILE", help="metrics.jsonl or CSV of a run, and its name in the legend")
    parser.add_argument("--png", type=Path, help="picture to write")
    parser.add_argument("--csv", type=Path, help="CSV to write, of a single run")
    parser.add_argument("--smooth", type=int, default=20, help="points in the running mean of the training loss (default: %(default)s)")
    parser.add_argument("--line", action="append", default=[], metavar="NAME=LOSS", help="a loss to compare with, drawn as a level; may be given several times")
    parser.add_argument("--title", default="", help="title of the picture (default: none)")
    arguments = parser.parse_args()
    if not arguments.png and not arguments.csv:
        parser.error("expected --png or --csv")
    if arguments.csv and len(arguments.runs) != 1:
        parser.error(f"--csv takes one run, found {len(arguments.runs)}")
    if arguments.smooth < 1:
        parser.error(f"--smooth: expected at least 1, found {arguments.smooth}")
    runs = {}
    for name, file in map(named, arguments.runs):
        path = Path(file)
        runs[name or path.parent.name or path.stem] = read_run(path)
    if len(runs) != len(arguments.runs):
        parser.error("two runs of one name: write NAME=FILE")
    lines = {name or value: float(value) for name, value in map(named, arguments.line)}
    if arguments.csv:
        write_csv(next(iter(runs.values())), arguments.csv)
    if arguments.png:
        plot(runs, arguments.png, arguments.smooth, lines, arguments.title)


if __name__ == "__main__":
    main()
