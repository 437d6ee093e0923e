#!/usr/bin/env python3
"""Trains a byte-level BPE tokenizer on the training split and writes it in the Hugging Face format.

    tools/train_tokenizer.py --data /tmp/foe-data/corpus --out /tmp/foe-data/tokenizer --vocab 4096

No normaliser, and all 256 bytes are in the alphabet: every UTF-8 text round-trips. Text is cut into words by GPT-2's
rules, which is why a word's token starts with its space. Id 0 is <|endoftext|>, which separates documents.
"""

import argparse
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
# Contractions; a run of letters, of digits or of other signs, each with the space before it; white space.
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(GPT2_WORDS), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(END_OF_TEXT, special=True, normalized=False)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def bytes_per_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    encodings = tokenizer.encode_batch(texts)
    for text, encoding in zip(texts, encodings, strict=True):
        if tokenizer.decode(encoding.ids, skip_special_tokens=False) != text:
            raise SystemExit(f"train_tokenizer: a text does not round-trip; it starts with {text[:60]!r}")
    return sum(len(text.encode()) for text in texts) / sum(len(encoding.ids) for encoding in encodings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/tmp/foe-data/corpus"), help="folder that fetch_corpus.py wrote (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("/tmp/foe-data/tokenizer"),
                        help="folder to write (default: %(default)s)")
    parser.add_argument("--vocab", type=int, default=4096, help="number of tokens, the 256 bytes and <|endoftext|> included (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {
        split: [path.read_text("utf-8") for path in sorted((arguments.data / split).glob("*.txt"))]
        for split in ("train", "valid")
    }
    if not splits["train"]:
        raise SystemExit(f"train_tokenizer: expected text in {arguments.data / 'train'}/*.txt, found none: run fetch_corpus.py first")
    tokenizer = train(splits["train"], arguments.vocab)
    if tokenizer.get_vocab_size() != arguments.vocab or tokenizer.token_to_id(END_OF_TEXT) != 0:
        raise SystemExit(f"train_tokenizer: expected {arguments.vocab} tokens, found {tokenizer.get_vocab_size()}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    (arguments.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    for split, texts in splits.items():
        print(f"{split}: {bytes_per_token(tokenizer, texts):.3f} bytes per token")


if __name__ == "__main__":
    main()
