#!/usr/bin/env python3
"""Random texts and ids against the `tokenizers`, `sentencepiece` and `tiktoken` libraries: library_test.py PROGRAM, the
path of library_cases. More texts: --texts N."""

import argparse
import base64
import json
import pathlib
import random
import re
import subprocess
import sys
import unicodedata

try:
    import sentencepiece
    import tiktoken
    import tokenizers
except ImportError as error:
    print(f"skipped: {error}; tools/venv.sh build/venv tools/requirements-test.txt installs it")
    sys.exit(77)

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden/tokenizer"
FILES = ["gpt2", "llama3", "qwen2", "olmoe", "llama2", "mistral", "phi3", "gemma", "unfused", "t5", "xlmr", "smollm"]
MODELS = ["spm_bpe", "spm_unigram", "spm_suffix"]
PIECES = ["▁", "▁▁", " ", "  ", "\n", "\t", "\r\n", "the", " the", "The mill", "the mill", "<b>", "<s>", "</s>", "<unk>"]
PIECES += ["<mask>", "<|end|>", "<|user|>", "<|endoftext|>", "[INST]", "<0x0A>", "Zwölf", "мешки", "袋", "\U0001f44d"]
PIECES += ["e\u0301", "\ufeff", "\u200b", "Ａ\u0301", "ﷺ", "㎒", "½", "don't", "1234", "Wo", "    ", "|", "İ", "ᄒ", "ᅡ"]
PIECES += ["\u0323\u0307", "磨坊主人", "袋子数了"]
PLANES = [(0x20, 0x7E)] * 5 + [(0x80, 0x24F), (0x300, 0x36F), (0x370, 0x6FF), (0x900, 0xDFF), (0x2000, 0x2BFF)]
PLANES += [(0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFD), (0x10000, 0x1FFFF), (1, 0x1F)]


def random_text(rng):
    """Pieces that mean something to some tokenizer, and characters that Python's Unicode knows."""
    parts = []
    for _ in range(rng.randint(0, 12)):
        if rng.random() < 0.5:
            parts.append(rng.choice(PIECES))
            continue
        point = rng.randint(*rng.choice(PLANES))
        if unicodedata.category(chr(point)) not in ("Cn", "Cs"):
            parts.append(chr(point))
    return "".join(parts)


def run(program, model, lines):
    text = "\n".join(map(json.dumps, lines)) + "\n"
    done = subprocess.run([program, model], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{model}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def plain(text):
    """Without the bytes that spell no characters, of which the libraries make different numbers of U+FFFD."""
    return re.sub("\ufffd+", "\ufffd", text)


class HuggingFace:
    def __init__(self, path):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self.vocab_size = self.tokenizer.get_vocab_size()

    def encode(self, text):
        self.tokenizer.encode_special_tokens = False
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        self.tokenizer.encode_special_tokens = True
        return ids, self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        # The library turns a whole run of bytes into U+FFFD if one of them is wrong; such ids are not compared.
        run, names = b"", [self.tokenizer.id_to_token(i) for i in ids] + [""]
        for name in names:
            if byte := re.fullmatch("<0x([0-9A-F]{2})>", name):
                run += bytes([int(byte[1], 16)])
                continue
            try:
                run.decode()
            except UnicodeDecodeError:
                return None
            run = b""
        return self.tokenizer.decode(ids, skip_special_tokens=False)


class SentencePiece:
    def __init__(self, folder):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        self.vocab_size = self.processor.get_piece_size()
        self.control = [self.processor.id_to_piece(i) for i in range(self.vocab_size) if self.special(i)]

    def special(self, i):
        return self.processor.is_control(i) or self.processor.is_unknown(i)

    def encode(self, text):
        raw = self.processor.encode(text)
        parts = re.split("(" + "|".join(map(re.escape, self.control)) + ")", text)
        ids = [[self.processor.piece_to_id(p)] if p in self.control else self.processor.encode(p) for p in parts]
        return sum(ids, []), raw

    def decode(self, ids):
        if any(self.processor.is_control(i) for i in ids):
            return None  # the library leaves them out
        return self.processor.decode(ids)


class Tiktoken:
    def __init__(self, folder):
        lines = (folder / "tiktoken.model").read_text().split()
        ranks = {base64.b64decode(token): int(rank) for token, rank in zip(lines[::2], lines[1::2])}
        config = json.loads((folder / "tokenizer_config.json").read_text())
        special = {token["content"]: int(i) for i, token in config["added_tokens_decoder"].items()}
        self.encoding = tiktoken.Encoding("kimi", pat_str=KIMI_PATTERN, mergeable_ranks=ranks, special_tokens=special)
        self.vocab_size = self.encoding.n_vocab

    def encode(self, text):
        return self.encoding.encode(text, allowed_special="all"), self.encoding.encode_ordinary(text)

    def decode(self, ids):
        return self.encoding.decode(ids)


KIMI_PATTERN = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def compare(program, model, library, texts, rng):
    wrong = 0

    def check(what, got, want):
        nonlocal wrong
        if got != want:
            wrong += 1
            if wrong <= 5:
                print(f"{model}: {what!r}\n  want {want!r}\n  got  {got!r}")

    for text, got in zip(texts, run(program, model, [{"text": text} for text in texts])):
        want, raw = library.encode(text)
        check(text, got["ids"], want)
        check(text, got["raw"], raw)
    id_lists = [[rng.randrange(library.vocab_size) for _ in range(rng.randint(0, 9))] for _ in texts]
    for ids, got in zip(id_lists, run(program, model, [{"ids": ids} for ids in id_lists])):
        check(ids, got["streamed"], got["text"])
        want = library.decode(ids)
        if want is not None:
            check(ids, plain(got["text"]), plain(want))
    print(f"{model}: {len(texts)} texts, {wrong} differences")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", nargs="*", default=[], help="further tokenizer.json")
    parser.add_argument("--sentencepiece", nargs="*", default=[], help="further folders with a tokenizer.model")
    args = parser.parse_args()
    libraries = {str(GOLDEN / f"{name}.json"): HuggingFace for name in FILES} | dict.fromkeys(args.json, HuggingFace)
    libraries |= {str(GOLDEN / name): SentencePiece for name in MODELS} | dict.fromkeys(args.sentencepiece, SentencePiece)
    libraries[str(GOLDEN / "kimi")] = Tiktoken
    wrong = 0
    for model, library in libraries.items():
        rng = random.Random(args.seed)
        texts = [random_text(rng) for _ in range(args.texts)]
        wrong += compare(args.program, model, library(pathlib.Path(model)), texts, rng)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
