#!/usr/bin/env python3
"""Turns the corpus into the token files that `foe train` reads.

    tools/pack_tokens.py --data /tmp/foe-data/corpus --tokenizer /tmp/foe-data/tokenizer --out /tmp/foe-data/tokens

Writes OUT/train.u16 and OUT/valid.u16, raw little-endian uint16 token ids, and OUT/meta.json:

    {"vocab_size": 4096, "end_of_text": 0, "tokenizer_sha256": "...", "seed": 0,
     "train": {"file": "train.u16", "tokens": N, "bytes": B, "sha256": "..."}, "valid": {...}}

`bytes` counts the UTF-8 text that the tokens stand for, <|endoftext|> counting nothing: bits per byte is the total loss
of a file's tokens in nats, divided by ln 2 and by `bytes`. Each piece of text is followed by <|endoftext|>. The
training split is cut at paragraphs into pieces of about 32 KB, long enough for any context, and these are shuffled, so
that a trainer which reads from front to back meets all sources at all times. The validation split is whole documents.
"""

import argparse
import hashlib
import json
import random
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


def write_tokens(pieces: list[str], tokenizer: Tokenizer, path: Path) -> dict:
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = [np.array(encoding.ids + [end], dtype="<u2") for encoding in tokenizer.encode_batch(pieces)]
    data = np.concatenate(ids)
    path.write_bytes(data.tobytes())
    text_bytes = sum(len(piece.encode()) for piece in pieces)
    digest = hashlib.sha256(data.tobytes()).hexdigest()
    ratio = text_bytes / data.size
    print(f"{path.name}: {data.size:,} tokens, {text_bytes:,} bytes of text, {ratio:.3f} bytes per token")
    return {"file": path.name, "tokens": int(data.size), "bytes": text_bytes, "sha256": digest}


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
    documents = {
        split: [path.read_text("utf-8") for path in sorted((arguments.data / split).glob("*.txt"))]
        for split in ("train", "valid")
    }
    for split, texts in documents.items():
        if not texts:
            raise SystemExit(f"pack_tokens: expected text in {arguments.data / split}/*.txt, found none: run fetch_corpus.py first")
    train = [piece for document in documents["train"] for piece in pieces_of(document, arguments.piece_bytes)]
    random.Random(arguments.seed).shuffle(train)
    arguments.out.mkdir(parents=True, exist_ok=True)
    meta = {
        "vocab_size": tokenizer.get_vocab_size(),
        "end_of_text": tokenizer.token_to_id(END_OF_TEXT),
        "tokenizer_sha256": hashlib.sha256(tokenizer_file.read_bytes()).hexdigest(),
        "seed": arguments.seed,
        "train": write_tokens(train, tokenizer, arguments.out / "train.u16"),
        "valid": write_tokens(documents["valid"], tokenizer, arguments.out / "valid.u16"),
    }
    (arguments.out / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
