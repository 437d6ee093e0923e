#!/usr/bin/env python3
"""What a trained model has to beat on the held-out text: xz, and an interpolated 5-gram model over the same tokens.

    tools/ngram_baseline.py --data /tmp/foe-data/corpus --tokens /tmp/foe-data/tokens --out /tmp/foe-data/baselines.json

The 5-gram model is modified Kneser-Ney, interpolated (Chen and Goodman 1999, section 3). Its discounts are tuned on the
last 2 % of the training tokens (with counts of the other 98 %), never on the validation split; then all training tokens
are counted. For comparison it also says what tuning on the validation split itself would have reached.

xz is given the validation text alone (`xz -9`), and, as a compressor that has seen the training text,
size(xz -9 of train + valid) - size(xz -9 of train): its dictionary of 64 MiB holds all of it.
"""

import argparse
import json
import lzma
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ORDER = 5
CLASSES = 3  # counts of one, of two, and of three or more have a discount each


@dataclass
class Table:
    """The n-grams of one order; an n-gram is one integer, its tokens being the digits in base V."""

    grams: np.ndarray  # sorted
    counts: np.ndarray  # how often (highest order), or after how many different tokens (the others)
    contexts: np.ndarray  # sorted, without the last token
    totals: np.ndarray  # sum of counts in the context
    classes: np.ndarray  # [contexts, CLASSES]: how many n-grams of the context have count one, two, three or more


def make_table(grams: np.ndarray, counts: np.ndarray, vocab: int) -> Table:
    contexts, starts = np.unique(grams // vocab, return_index=True)
    columns = [counts == 1, counts == 2, counts >= 3]
    classes = np.stack([np.add.reduceat(column.astype(np.int64), starts) for column in columns], axis=1)
    return Table(grams, counts, contexts, np.add.reduceat(counts, starts), classes)


def windows(tokens: np.ndarray, vocab: int, end_of_text: int) -> np.ndarray:
    """One n-gram of the highest order for each token, as integers; the text is preceded by ends of text."""
    padded = np.concatenate([np.full(ORDER - 1, end_of_text), tokens]).astype(np.int64)
    grams = np.zeros(len(tokens), dtype=np.int64)
    for i in range(ORDER):
        grams = grams * vocab + padded[i : i + len(tokens)]
    return grams


def count(tokens: np.ndarray, vocab: int, end_of_text: int) -> list[Table]:
    """Tables of order 1, 2, ..., ORDER."""
    grams, counts = np.unique(windows(tokens, vocab, end_of_text), return_counts=True)
    tables = [make_table(grams, counts, vocab)]
    for order in range(ORDER - 1, 0, -1):
        grams, counts = np.unique(grams % vocab**order, return_counts=True)
        tables.append(make_table(grams, counts, vocab))
    return tables[::-1]


@dataclass
class Features:
    """What one order knows of each queried n-gram."""

    counts: np.ndarray
    totals: np.ndarray  # 0 where the context was never seen
    classes: np.ndarray


def find(sorted_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return places, sorted_keys[places] == keys


def look_up(tables: list[Table], grams: np.ndarray, vocab: int) -> list[Features]:
    features = []
    for order, table in enumerate(tables, start=1):
        keys = grams % vocab**order
        gram_places, gram_found = find(table.grams, keys)
        context_places, context_found = find(table.contexts, keys // vocab)
        features.append(
            Features(
                np.where(gram_found, table.counts[gram_places], 0),
                np.where(context_found, table.totals[context_places], 0),
                np.where(context_found[:, None], table.classes[context_places], 0),
            )
        )
    return features


def probabilities(features: list[Features], discounts: np.ndarray, vocab: int) -> np.ndarray:
    """Equation: p_n = (c - D(c)) / C + (sum_i D_i N_i) / C * p_(n-1), down to the uniform distribution."""
    p = np.full(len(features[0].counts), 1.0 / vocab)
    for f, discount in zip(features, discounts, strict=True):
        seen = f.totals > 0
        total = np.where(seen, f.totals, 1)
        kept = f.counts - np.concatenate([[0.0], discount])[np.minimum(f.counts, CLASSES)]
        p = np.where(seen, (kept + (f.classes @ discount) * p) / total, p)
    return p


def closed_form_discounts(tables: list[Table]) -> np.ndarray:
    """Chen and Goodman's estimate from how many n-grams have count 1, 2, 3 and 4."""
    rows = []
    for table in tables:
        n = np.bincount(np.minimum(table.counts, 5), minlength=6).astype(float)
        y = n[1] / max(n[1] + 2 * n[2], 1)
        row = [i - (i + 1) * y * n[i + 1] / n[i] if n[i] else 0.5 * i for i in range(1, CLASSES + 1)]
        rows.append(np.clip(row, 0.0, np.arange(1, CLASSES + 1)))
    return np.array(rows)


def bits(features: list[Features], discounts: np.ndarray, vocab: int) -> float:
    return float(-np.log2(probabilities(features, discounts, vocab)).sum())


def tune(features: list[Features], start: np.ndarray, vocab: int) -> np.ndarray:
    """Coordinate descent with a halving step; a discount stays in [0, its count], so that nothing gets negative."""
    best, best_bits, step = start.copy(), bits(features, start, vocab), 0.1
    while step > 0.005:
        improved = False
        for order in range(ORDER):
            for i in range(CLASSES):
                for direction in (step, -step):
                    trial = best.copy()
                    trial[order, i] = np.clip(trial[order, i] + direction, 0.0, i + 1.0)
                    trial_bits = bits(features, trial, vocab)
                    if trial_bits < best_bits:
                        best, best_bits, improved = trial, trial_bits, True
        if not improved:
            step /= 2
    return best


def check_sums(tables: list[Table], grams: np.ndarray, discounts: np.ndarray, vocab: int) -> float:
    """Largest distance from 1 of the sum over all next tokens, in 64 contexts spread over the text.

    A term takes about 6 roundings an order, each relative to a part of it, and numpy adds V terms pairwise: with 2^-53 a
    rounding, 6 * ORDER + log2(V) of them stay under 1e-14 of the sum, 1. The bound leaves a factor of 100.
    """
    worst = 0.0
    for context in grams[:: max(1, len(grams) // 64)] // vocab:
        p = probabilities(look_up(tables, context * vocab + np.arange(vocab), vocab), discounts, vocab)
        worst = max(worst, abs(float(p.sum()) - 1.0))
        if worst > 1e-12 or p.min() <= 0:
            raise SystemExit(f"ngram_baseline: expected probabilities over 0 that sum to 1, found {p.min()}, {p.sum()}")
    return worst


def ngram_baseline(train: np.ndarray, valid: np.ndarray, valid_bytes: int, vocab: int, end_of_text: int) -> dict:
    cut = len(train) - len(train) // 50
    tables = count(train[:cut], vocab, end_of_text)
    slice_features = look_up(tables, windows(train[cut:], vocab, end_of_text), vocab)
    closed_form = closed_form_discounts(tables)
    tuned = tune(slice_features, closed_form, vocab)

    tables = count(train, vocab, end_of_text)
    grams = windows(valid, vocab, end_of_text)
    features = look_up(tables, grams, vocab)
    worst_sum = check_sums(tables, grams, tuned, vocab)
    by_discounts = {
        "bits_per_byte": tuned,
        "bits_per_byte_with_closed_form_discounts": closed_form_discounts(tables),
        "bits_per_byte_if_tuned_on_valid": tune(features, tuned, vocab),
    }
    result = {name: bits(features, discounts, vocab) / valid_bytes for name, discounts in by_discounts.items()}
    result["nats_per_token"] = result["bits_per_byte"] * valid_bytes * math.log(2) / len(valid)
    result["ngrams_by_order"] = [len(table.grams) for table in tables]
    result["discounts"] = tuned.round(4).tolist()
    result["largest_error_of_a_sum_of_probabilities"] = worst_sum
    return {"order": ORDER, "smoothing": "interpolated modified Kneser-Ney", **result}


def xz_baseline(train: bytes, valid: bytes) -> dict:
    alone, train_only, both = (len(lzma.compress(data, preset=9)) for data in (valid, train, train + valid))
    return {
        "preset": 9,
        "valid_compressed_bytes": alone,
        "bits_per_byte": 8 * alone / len(valid),
        "valid_compressed_bytes_after_train": both - train_only,
        "bits_per_byte_after_train": 8 * (both - train_only) / len(valid),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/tmp/foe-data/corpus"), help="folder that fetch_corpus.py wrote (default: %(default)s)")
    parser.add_argument("--tokens", type=Path, default=Path("/tmp/foe-data/tokens"), help="folder that pack_tokens.py wrote (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("/tmp/foe-data/baselines.json"),
                        help="JSON file to write (default: %(default)s)")
    arguments = parser.parse_args()
    meta = json.loads((arguments.tokens / "meta.json").read_text())
    vocab, end_of_text = meta["vocab_size"], meta["end_of_text"]
    if vocab**ORDER >= 2**63:
        raise SystemExit(f"ngram_baseline: expected at most {int(2 ** (63 / ORDER))} tokens, found {vocab}")
    tokens = {split: np.fromfile(arguments.tokens / meta[split]["file"], dtype="<u2") for split in ("train", "valid")}
    text = {
        split: b"".join(path.read_bytes() for path in sorted((arguments.data / split).glob("*.txt")))
        for split in ("train", "valid")
    }
    for split in ("train", "valid"):
        if len(tokens[split]) != meta[split]["tokens"] or len(text[split]) != meta[split]["bytes"]:
            raise SystemExit(f"ngram_baseline: {split} text or tokens differ in size from what {arguments.tokens}/meta.json "
                             "says: run pack_tokens.py again")
    result = {
        "valid_bytes": len(text["valid"]),
        "valid_tokens": len(tokens["valid"]),
        "ngram": ngram_baseline(tokens["train"], tokens["valid"], len(text["valid"]), vocab, end_of_text),
        "xz": xz_baseline(text["train"], text["valid"]),
    }
    print(json.dumps(result, indent=2))
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
