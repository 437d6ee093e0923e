#!/usr/bin/env python3
"""Computes the sixteen levels of int4 weights (src/kernels/formats/weight_format.h) and compares formats of about 4 bits.

Weights are normally distributed, in blocks of 128. A weight is the block's scale times a factor, of which each sixteen
weights choose one of four, times a level; the product of factor and level is an integer that fits into a byte. For each
list of factors levels are moved to the mean of what falls to them (Lloyd 1982), then scaled and rounded.

    tools/int4_levels.py [--blocks 2000]      # needs numpy
"""

import argparse

import numpy as np

BLOCK, PART = 128, 16
TOPS = (104, 111, 118, 126, 135, 145)  # what the largest weight becomes, among products: those kernels/formats/quantise.cc tries
FACTORS = ((2, 3, 4, -4), (1, 2, 3, 4), (2, 3, 4, -3), (2, 3, 4, 5), (3, 4, 5, -5), (3, 4, 5, 6), (4, 5, 6, -6), (4, 5, 6, 7))


def nearest(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values)


def quantise(blocks: np.ndarray, levels: np.ndarray, factors, tops=TOPS):
    """The best scale of each block among those that are tried, each moved to the best for its products; the factors of
    its parts, and the index of each weight's level."""
    count, depth = blocks.shape
    parts = blocks.reshape(count, -1, min(PART, depth))
    largest = np.maximum(np.abs(blocks).max(axis=1), 1e-30)  # a block of zeros has a scale, too
    least = np.full(count, np.inf)
    best = [np.zeros(count), np.zeros(parts.shape[:2]), np.zeros(parts.shape, int)]
    for top in tops:
        for sign in (1, -1):
            scale = sign * largest / top
            error, factor, index = np.full(parts.shape[:2], np.inf), np.zeros(parts.shape[:2]), np.zeros(parts.shape, int)
            for f in factors:
                unit = (scale * f)[:, None, None]
                found = nearest(parts / unit, levels)
                here = ((parts - unit * levels[found]) ** 2).sum(2)
                better = here < error
                error[better], factor[better], index[better] = here[better], f, found[better]
            products = (levels[index] * factor[:, :, None]).reshape(count, depth)
            scale = (blocks * products).sum(1) / (products**2).sum(1)
            error = ((blocks - scale[:, None] * products) ** 2).sum(1)
            better = error < least
            least[better] = error[better]
            for kept, new in zip(best, (scale, factor, index)):
                kept[better] = new[better]
    return best, least


def relative_error(blocks: np.ndarray, levels: np.ndarray, factors=(1,), tops=TOPS) -> float:
    return float(np.sqrt(quantise(blocks, levels, factors, tops)[1].sum() / (blocks**2).sum()))


def one_scale_error(blocks: np.ndarray, levels: np.ndarray, depth: int) -> float:
    """Where each `depth` weights have a scale of their own and no factors."""
    tops = np.abs(levels).max() * np.array([0.63, 0.7, 0.77, 0.83, 0.9, 0.97, 1.0, 1.07])
    return relative_error(blocks.reshape(-1, depth), levels, (1,), tops)


def lloyd(blocks: np.ndarray, levels: np.ndarray, factors, rounds: int) -> np.ndarray:
    levels = levels.copy()
    for _ in range(rounds):
        (scale, factor, index), _ = quantise(blocks, levels, factors)
        unit = np.broadcast_to((scale[:, None] * factor)[:, :, None], index.shape)
        parts = blocks.reshape(index.shape)
        for i in range(len(levels)):
            here = index == i
            if here.any():
                levels[i] = (unit[here] * parts[here]).sum() / (unit[here] ** 2).sum()
        levels.sort()
    return levels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2000,
                        help="blocks of 128 random weights (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8,
                        help="rounds in which levels are moved (default: %(default)s)")
    args = parser.parse_args()
    random = np.random.default_rng(1)
    train, test = random.standard_normal((2, args.blocks, BLOCK))
    heavy = random.standard_t(5, (args.blocks, BLOCK))
    print("relative errors: normally distributed weights, and those of Student's t with 5 degrees of freedom")
    begin = np.array([-28, -22, -17, -13, -10, -7, -4, -1, 2, 5, 8, 11, 15, 19, 25, 31]) / 31
    for factors in FACTORS:
        top = 127 // max(map(abs, factors))
        free = lloyd(train, begin * top, factors, args.rounds)
        levels = np.round(free * (top / np.abs(free).max()))
        errors = [relative_error(blocks, levels, factors) for blocks in (test, heavy)]
        print(f"{errors[0]:.4f} {errors[1]:.4f}  factors {factors}, levels {', '.join(str(int(l)) for l in levels)}", flush=True)
    for depth in (16, 32, 64, 128):
        errors = [one_scale_error(blocks, begin * 31, depth) for blocks in (test, heavy)]
        print(f"{errors[0]:.4f} {errors[1]:.4f}  a scale for each {depth}, no factors")
    uniform = np.arange(-8.0, 8.0)
    print(f"{one_scale_error(test, uniform, 32):.4f} {one_scale_error(heavy, uniform, 32):.4f}  the same for 32, uniform levels")


if __name__ == "__main__":
    main()
