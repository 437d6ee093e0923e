#!/usr/bin/env python3
"""What int8 and int4 weights cost a model: the error of its weights, and its loss on a text.

    tools/quantised_quality.py models/foe-8m TEXT [TEXT...] [--tokens 32768] [--formats bf16,int8,int4]

The text is scored in windows of the model's context, each token once, with at least half a window before it (the first
ones with what there is). Also printed: how far the next-token distributions are from those of the model as it is
(Kullback-Leibler divergence, nats), and how often the most likely token is the same. Needs the packages of
tools/requirements.txt.
"""

import argparse
import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tokenizers

import int4_levels

ROOT = Path(__file__).resolve().parents[1]
FORMATS = (ROOT / "src" / "kernels" / "formats" / "weight_format.h").read_text()


def constants(name: str) -> list[float]:
    return [float(value) for value in re.search(name + r"\[\d+\] = {([^}]*)}", FORMATS)[1].split(",")]


INT4_LEVELS, INT4_FACTORS = np.array(constants("kInt4Levels")), constants("kInt4Factors")


def read_tensors(path: Path):
    """Name and values of each tensor of f32 or bf16."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    for name, tensor in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        raw = data[8 + size + begin : 8 + size + end]
        if tensor["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, "<f4")
        yield name, values.reshape(tensor["shape"])


def in_blocks(matrix: np.ndarray, depth: int) -> np.ndarray:
    padded = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % depth)))
    return padded.reshape(-1, depth)


def rotated(blocks: np.ndarray) -> np.ndarray:
    """The Walsh-Hadamard transform of each block, with unchanged lengths."""
    width = blocks.shape[1]
    signs = np.array([[1]])
    while len(signs) < width:
        signs = np.block([[signs, signs], [signs, -signs]])
    return blocks @ signs / np.sqrt(width)


def weight_errors(model: Path) -> None:
    matrices = [v for name, v in read_tensors(model / "model.safetensors") if v.ndim == 2 and "mlp.gate." not in name]
    blocks = np.concatenate([in_blocks(m, int4_levels.BLOCK) for m in matrices]).astype(float)
    blocks = blocks[np.abs(blocks).max(1) > 0]
    turned = rotated(blocks)
    scale = np.abs(turned).max(1, keepdims=True) / 127
    norm = np.sqrt((blocks**2).sum())
    print("relative error of the matrices:")
    print(f"  int8, rotated blocks of 128                          {np.sqrt(((np.round(turned / scale) * scale - turned) ** 2).sum()) / norm:.4f}")
    print(f"  int4, blocks of 128, a factor for each 16            {int4_levels.relative_error(blocks, INT4_LEVELS, INT4_FACTORS):.4f}")
    print(f"  these levels, a scale for each 32 and no factors     {int4_levels.one_scale_error(blocks, INT4_LEVELS, 32):.4f}")
    print(f"  uniform levels, a scale for each 32 and no factors   {int4_levels.one_scale_error(blocks, np.arange(-8.0, 8.0), 32):.4f}")


def logits(foe: Path, model: Path, ids: list[int], flags: list[str], folder: Path) -> np.ndarray:
    output, tokens = folder / "logits.safetensors", folder / "tokens"
    tokens.write_text(",".join(map(str, ids)))
    subprocess.run([foe, "logits", model, "--tokens", f"@{tokens}", "--output", output, *flags], check=True)
    return next(values for name, values in read_tensors(output) if name == "logits").astype(np.float64)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("text", type=Path, nargs="+", help="text files, scored one after the other")
    parser.add_argument("--tokens", type=int, default=32768, help="most tokens of the text that are scored (default: %(default)s)")
    parser.add_argument("--formats", default="bf16,int8,int4", help="formats as `foe --quantize` takes them, separated by commas, or by spaces "
                             "(default: %(default)s)")
    parser.add_argument("--foe", type=Path, default=ROOT / "build" / "foe", help="the program (default: build/foe)")
    args = parser.parse_args()
    weight_errors(args.model)
    tokenizer = tokenizers.Tokenizer.from_file(str(args.model / "tokenizer.json"))
    text = "\n\n".join(path.read_text() for path in args.text)
    ids = tokenizer.encode(text).ids[: args.tokens]
    text_bytes = len(tokenizer.decode(ids[1:]).encode())
    context = json.loads((args.model / "config.json").read_text())["max_position_embeddings"]
    formats = args.formats.split() if " " in args.formats else args.formats.split(",")
    loss, divergence, same, scored = dict.fromkeys(formats, 0.0), dict.fromkeys(formats, 0.0), dict.fromkeys(formats, 0), 0
    with tempfile.TemporaryDirectory() as folder:
        for begin in range(0, len(ids) - 1, context // 2):
            window = ids[begin : begin + context]
            first = 0 if begin == 0 else context // 2 - 1  # the row whose next token is the first that counts
            targets = window[first + 1 :]
            if not targets:
                break
            reference = log_softmax(logits(args.foe, args.model, window, [], Path(folder)))[first : first + len(targets)]
            for name in formats:
                mine = log_softmax(logits(args.foe, args.model, window, ["--quantize", name], Path(folder)))
                mine = mine[first : first + len(targets)]
                loss[name] -= mine[np.arange(len(targets)), targets].sum()
                divergence[name] += (np.exp(reference) * (reference - mine)).sum()
                same[name] += int((mine.argmax(1) == reference.argmax(1)).sum())
            scored += len(targets)
            if sys.stderr.isatty():
                print(f"\r{scored} of {len(ids) - 1} tokens", end="", file=sys.stderr)
    print(f"{scored} tokens, {text_bytes} bytes:")
    print(f"{'format':<44} {'nats/token':>10} {'bits/byte':>10} {'perplexity':>10} {'divergence':>11} {'same first':>10}")
    for name in formats:
        nats = loss[name] / scored
        print(
            f"{name:<44} {nats:>10.4f} {loss[name] / np.log(2) / text_bytes:>10.4f} {np.exp(nats):>10.3f}"
            f" {divergence[name] / scored:>11.6f} {100 * same[name] / scored:>8.2f} %"
        )


if __name__ == "__main__":
    main()
