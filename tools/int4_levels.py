#!/usr/bin/env python3
"""Computes the sixteen levels of int4 weights (src/kernels/weight_format.h) and compares formats of about 4.5 bits.

Weights are normally distributed, in blocks of 32. A block's scale is what makes its squared error least; levels are
moved to the mean of what falls to them until nothing changes (Lloyd 1982), then scaled and rounded to integers from -32
to 31, and each moved by one as long as that helps.

    tools/int4_levels.py [--blocks 20000]      # needs numpy
"""

import argparse

import numpy as np

TOPS = tuple(t / 30 for t in (19, 21, 23, 25, 27, 29, 30, 32))  # of the largest level


def nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)


def quantise(blocks: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best scale of each block among those that kernels/quantise.cc tries, and its codes."""
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    best_error = np.full((len(blocks), 1), np.inf)
    best_scale = np.zeros_like(largest)
    for top in np.abs(levels).max() * np.array(TOPS):
        for sign in (1, -1):
            scale = sign * largest / top
            level = levels[nearest(blocks / scale, levels)]
            scale = (blocks * level).sum(1, keepdims=True) / (level * level).sum(1, keepdims=True)
            error = ((blocks - scale * level) ** 2).sum(1, keepdims=True)
            better = error < best_error
            best_error[better] = error[better]
            best_scale[better] = scale[better]
    return best_scale, nearest(blocks / best_scale, levels)


def relative_error(blocks: np.ndarray, levels: np.ndarray) -> float:
    scale, codes = quantise(blocks, levels)
    return float(np.sqrt(((blocks - scale * levels[codes]) ** 2).sum() / (blocks**2).sum()))


def lloyd(blocks: np.ndarray, levels: np.ndarray, rounds: int) -> np.ndarray:
    for _ in range(rounds):
        scale, codes = quantise(blocks, levels)
        # A level's best value weighs what falls to it by its block's scale.
        weight = np.broadcast_to(scale**2, blocks.shape)
        for i in range(len(levels)):
            here = codes == i
            levels[i] = (weight[here] * (blocks / scale)[here]).sum() / weight[here].sum()
    return levels


def fits(levels: np.ndarray) -> bool:
    return levels.min() >= -32 and levels.max() <= 31 and len(set(levels)) == len(levels)


def integers(blocks: np.ndarray, levels: np.ndarray) -> np.ndarray:
    rounded = [np.round(levels * (top / np.abs(levels).max())) for top in np.arange(26, 33, 0.5)]
    best = min(filter(fits, rounded), key=lambda candidate: relative_error(blocks, candidate))
    while True:
        neighbours = [best + step * (np.arange(len(best)) == i) for i in range(len(best)) for step in (-1, 1)]
        better = min(filter(fits, neighbours), key=lambda candidate: relative_error(blocks, np.sort(candidate)))
        if relative_error(blocks, np.sort(better)) >= relative_error(blocks, best):
            return best
        best = np.sort(better)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    random = np.random.default_rng(1)
    train, test = random.standard_normal((2, args.blocks, 32))
    uniform = np.arange(-8.0, 8.0)
    plain_scale = np.abs(test).max(axis=1, keepdims=True) / 7
    plain = np.clip(np.round(test / plain_scale), -8, 7) * plain_scale
    free = lloyd(train, uniform + 0.5, args.rounds)
    levels = integers(train[:4000], free)
    print("levels:", ", ".join(str(int(level)) for level in levels))
    print(f"relative error, uniform, scaled to the largest: {np.sqrt(((test - plain) ** 2).sum() / (test ** 2).sum()):.4f}")
    print(f"relative error, uniform, best scale:            {relative_error(test, uniform):.4f}")
    print(f"relative error, levels that need not be integers: {relative_error(test, free):.4f}")
    print(f"relative error, these levels, best scale:       {relative_error(test, levels):.4f}")


if __name__ == "__main__":
    main()
