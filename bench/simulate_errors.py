#!/usr/bin/env python3
"""Prints how far foe simulate is off: what bench/simulate_check.sh OUT has measured beside what it has simulated.
Standard library only. Usage: bench/simulate_errors.py OUT"""

import json
import statistics
import sys
from pathlib import Path


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def off(simulated, measured):
    return 100 * (simulated / measured - 1)


def passes(out):
    key = lambda p: (p["rung"], p["load"], p["tokens"])
    simulated = {key(p): p for p in load(out / "simulated.json")["points"]}
    print(f"{'rung':<16} {'load':<13} {'tokens':>6} {'measured ms':>12} {'spread':>8} {'simulated':>10} {'off':>7}")
    errors = []
    for point in load(out / "measured.json")["points"]:
        measured, guess = point["seconds"], simulated[key(point)]["seconds"]
        spread = 100 * (point["slowest_s"] - point["fastest_s"]) / measured
        errors.append((abs(off(guess, measured)), spread, key(point)))
        print(f"{point['rung']:<16} {point['load']:<13} {point['tokens']:>6} {1e3 * measured:>12.2f} {spread:>7.0f}%"
              f" {1e3 * guess:>10.2f} {off(guess, measured):>+6.0f}%")
    within = sum(error <= max(10, 2 * spread) for error, spread, _ in errors)
    print(f"forward passes: off by {statistics.median(e for e, _, _ in errors):.1f} % in the median, worst"
          f" {max(errors)[0]:.0f} % ({', '.join(map(str, max(errors)[2]))}); {within} of {len(errors)} within 10 % or twice"
          " the measurement's spread\n")


def serving(out):
    print(f"{'plan':<6} {'':<12} {'measured ms':>12} {'simulated':>10} {'off':>7}")
    for plan in ("tp", "ep", "foe"):
        if not (out / f"served-{plan}.json").exists():
            continue
        measured, simulated = load(out / f"served-{plan}.json"), load(out / f"served-{plan}-simulated.json")[0]
        for metric in ("ttft", "tpot", "e2el"):
            for what in ("mean", "median", "p99"):
                name = f"{what}_{metric}_ms"
                print(f"{plan:<6} {what + ' ' + metric:<12} {measured[name]:>12.1f} {simulated[name]:>10.1f}"
                      f" {off(simulated[name], measured[name]):>+6.0f}%")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    passes(Path(sys.argv[1]))
    serving(Path(sys.argv[1]))
