#!/usr/bin/env python3
"""Computes the sixteen levels of int4 weights (src/kernels/weight_format.h) and compares formats of about 4.5 bits.

Weights are normally distributed, in blocks of 32. A block's scale is what makes its squared error least; levels are
moved to the mean of what falls to them until nothing changes (Lloyd 1982), then rounded to bytes.

    tools/int4_levels.py [--blocks 20000]      # needs numpy
"""

import argparse

import numpy as np

TOPS = (80, 88, 96, 104, 112, 120, 127, 134)


def nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)


def quantise(blocks: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best scale of each block among those that kernels/quantise.cc tries, and its codes."""
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    best_error = np.full((len(blocks), 1), np.inf)
    best_scale = np.zeros_like(largest)
    for top in TOPS:
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
        levels = levels * (127 / np.abs(levels).max())
    return levels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    random = np.random.default_rng(1)
    train, test = random.standard_normal((2, args.blocks, 32))
    uniform = np.arange(-8, 8) * (127 / 8)
    plain_scale = np.abs(test).max(axis=1, keepdims=True) / 127
    plain = np.clip(np.round(test / plain_scale * 7 / 127), -8, 7) * plain_scale * 127 / 7
    levels = np.round(lloyd(train, uniform + 127 / 16, args.rounds)).astype(int)
    print("levels:", ", ".join(map(str, levels)))
    print(f"relative error, uniform, scaled to the largest: {np.sqrt(((test - plain) ** 2).sum() / (test ** 2).sum()):.4f}")
    print(f"relative error, uniform, best scale:            {relative_error(test, uniform):.4f}")
    print(f"relative error, these levels, best scale:       {relative_error(test, levels.astype(float)):.4f}")


if __name__ == "__main__":
    main()
