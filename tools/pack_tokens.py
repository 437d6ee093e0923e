#!/usr/bin/env python3
"""Turns the corpus into the token files that `foe train` reads.

    tools/pack_tokens.py --data /tmp/foe-data/corpus --tokenizer /tmp/foe-data/tokenizer --out /tmp/foe-data/tokens

Writes OUT/train.u16 and OUT/valid.u16, raw little-endian uint16 token ids, and OUT/meta.json:

    {"vocab_size": 4096, "end_of_text": 0, "tokenizer_sha256": "...", "seed": 0,
     "train": {"file": "train.u16", "tokens": N, "bytes": B, "sha256": "..."}, "valid": {...},
     "packages": {"PACKAGE": N, ...}}

`bytes` counts the UTF-8 text that the tokens stand for, <|endoftext|> counting nothing: bits per byte is the total loss
of a file's tokens in nats, divided by ln 2 and by `bytes`. Each piece of text is followed by <|endoftext|>. The
training split is cut at paragraphs into pieces of about 32 KB, long enough for any context, and these are shuffled, so
that a trainer which reads from front to back meets all sources at all times. The validation split is whole documents.
`packages` has the tokens of both splits by the Debian package that they are from.
"""

import argparse
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"


def pieces_of(document: str, size: int) -> list[str]:
    """Cuts at paragraphs, once a piece has `size` bytes. Joined again, the pieces are the document."""
    pieces, current, length = [], [], 0
    for paragraph in document.split("\n\n"):
        current.append(paragraph)
        length += len(paragraph.encode()) + 2
        if length >= size:
            pieces.append("\n\n".join(current) + "\n\n")
            current, length = [], 0
    pieces.append("\n\n".join(current))
    if not current:  # the last cut fell on the end, where no separator follows
        pieces.pop()
        pieces[-1] = pieces[-1].removesuffix("\n\n")
    return pieces


def write_tokens(pieces: list[tuple[str, str]], tokenizer: Tokenizer, path: Path, packages: Counter) -> dict:
    """Writes the tokens of the (package, text) in `pieces`, and counts them in `packages`."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    digest, tokens, text_bytes = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        for first in range(0, len(pieces), 256):  # an encoding takes far more memory than its ids
            group = pieces[first : first + 256]
            for (package, text), encoding in zip(group, tokenizer.encode_batch([t for _, t in group]), strict=True):
                data = np.array(encoding.ids + [end], dtype="<u2")
                file.write(data.tobytes())
                digest.update(data.tobytes())
                tokens += data.size
                text_bytes += len(text.encode())
                packages[package] += data.size
    print(f"{path.name}: {tokens:,} tokens, {text_bytes:,} bytes of text, {text_bytes / tokens:.3f} bytes per token")
    return {"file": path.name, "tokens": tokens, "bytes": text_bytes, "sha256": digest.hexdigest()}


def read_documents(data: Path) -> dict[str, list[tuple[str, str]]]:
    """The (package, text) of each document of each split, in the order of the files' names."""
    manifest = data / "manifest.json"
    if not manifest.exists():
        raise SystemExit(f"pack_tokens: expected {manifest}, found none: run fetch_corpus.py first")
    splits = {"train": [], "valid": []}
    for file in json.loads(manifest.read_text("utf-8"))["files"]:  # sorted
        splits[file["path"].split("/")[0]].append((file["package"], (data / file["path"]).read_text("utf-8")))
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/tmp/foe-data/corpus"), help="folder that fetch_corpus.py wrote (default: %(default)s)")
    parser.add_argument("--tokenizer", type=Path, default=Path("/tmp/foe-data/tokenizer"),
                        help="folder that train_tokenizer.py wrote (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("/tmp/foe-data/tokens"),
                        help="folder to write (default: %(default)s)")
    parser.add_argument("--piece-bytes", type=int, default=32768,
                        help="least size of a piece of training text, except a document's last (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of pieces (default: %(default)s)")
    arguments = parser.parse_args()
    tokenizer_file = arguments.tokenizer / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    if tokenizer.get_vocab_size() > 65536 or tokenizer.token_to_id(END_OF_TEXT) is None:
        raise SystemExit(
            f"pack_tokens: expected at most 65536 tokens and {END_OF_TEXT} among them, found "
            f"{tokenizer.get_vocab_size()} tokens and {END_OF_TEXT} = {tokenizer.token_to_id(END_OF_TEXT)}"
        )
    documents = read_documents(arguments.data)
    train = [(package, piece) for package, text in documents["train"] for piece in pieces_of(text, arguments.piece_bytes)]
    random.Random(arguments.seed).shuffle(train)
    arguments.out.mkdir(parents=True, exist_ok=True)
    packages = Counter()
    meta = {
        "vocab_size": tokenizer.get_vocab_size(),
        "end_of_text": tokenizer.token_to_id(END_OF_TEXT),
        "tokenizer_sha256": hashlib.sha256(tokenizer_file.read_bytes()).hexdigest(),
        "seed": arguments.seed,
        "train": write_tokens(train, tokenizer, arguments.out / "train.u16", packages),
        "valid": write_tokens(documents["valid"], tokenizer, arguments.out / "valid.u16", packages),
        "packages": dict(sorted(packages.items())),
    }
    (arguments.out / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
