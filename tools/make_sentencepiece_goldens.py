#!/usr/bin/env python3
"""Writes to tests/golden/tokenizer/ small tokenizers in the forms of Llama 2, Mistral, Gemma, Phi-3, T5, XLM-R, SmolLM
and Kimi, and SentencePiece's own files, with what the libraries make of the texts of make_tokenizer_goldens.py.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 tiktoken==0.14.0 protobuf==7.36.2
    python3 tools/make_sentencepiece_goldens.py

NAME.json and NAME.cases.json are as make_tokenizer_goldens.py describes them. Of the others, NAME/ is a model folder.
"""

import base64
import contextlib
import io
import json
import pathlib
import tempfile

import sentencepiece
import tiktoken
from make_tokenizer_goldens import (
    OUTPUT, TEXTS, TRAINING_TEXT, byte_level_bpe, dump, golden, random_texts
)  # fmt: skip
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPACE = "\u2581"
RANDOMS = random_texts(120)
# What only these tokenizers treat in a way of their own.
MORE_TEXTS = [
    "\u2581", "\u2581a \u2581", "a\u2581b", " \u2581 a", "  lead", "trail  ", "a  b   c", "<0x41>", "<0x0A>\n", "<unk>",
    "<s>", "a<s> b", "<s>a</s> b", "</s>", "<pad>", "the <mask> of", "<mask>", "\ufeffa", "\u200ba\u00adb", "a\tb\x0bc",
    "\uff21\u0301\uff42", "\r\n\r\n", "\u3392\u33a5\ufdfa", "\u0130stanbul", "user <|user|>\nhi <|end|> x",
    "  <|user|>  hi", "the the", "thethe", "12345 1 2", "Zw\u00f6lf Boxk\u00e4mpfer", "\U0001f44d\U0001f44d",
    "<b><br/>",
]  # fmt: skip
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
AFFIXES = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
KIMI_PATTERN = "|".join([
    r"[\p{Han}]+", f"{UPPER}*{LOWER}+".join(AFFIXES), f"{UPPER}+{LOWER}*".join(AFFIXES), r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
])  # fmt: skip


def train(kind, vocab_size, **options):
    """The bytes of a SentencePiece model of the training text."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING_TEXT.split("\n")), model_writer=model, model_type=kind, vocab_size=vocab_size,
        hard_vocab_limit=False, minloglevel=2, num_threads=1, **options,
    )  # fmt: skip
    return model.getvalue()


LLAMA = dict(
    normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=True, split_digits=True,
    allow_whitespace_only_pieces=True, character_coverage=0.98,
)  # fmt: skip


def pieces_of(model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]


def sentencepiece_bpe(vocab_size=620, **options):
    """BPE as transformers converts it: a merge for each way to cut a piece into two pieces."""
    pieces = pieces_of(train("bpe", vocab_size, **LLAMA))
    scores = dict(pieces)
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = [
        (-scores[piece], vocab[piece], piece[:cut], piece[cut:])
        for piece in vocab for cut in range(1, len(piece)) if piece[:cut] in vocab and piece[cut:] in vocab
    ]  # fmt: skip
    pairs = [(left, right) for _, _, left, right in sorted(merges)]
    return models.BPE(vocab=vocab, merges=pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True, **options)


def llama_decoder(*end):
    return decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *end])


def begin_template(tokenizer, begin="<s>"):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )


def llama2():
    tokenizer = Tokenizer(sentencepiece_bpe())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = llama_decoder(decoders.Strip(" ", 1, 0))
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    begin_template(tokenizer)
    return tokenizer


def mistral():
    tokenizer = Tokenizer(sentencepiece_bpe(ignore_merges=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    tokenizer.decoder = llama_decoder(decoders.Strip(" ", 1, 0))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    begin_template(tokenizer)
    return tokenizer


def phi3():
    tokenizer = llama2()
    added = [AddedToken("<|end|>", rstrip=True, special=True, normalized=False)]
    added += [AddedToken("<|user|>", rstrip=True, special=True, normalized=False)]
    added += [AddedToken("the", single_word=True, normalized=False), AddedToken("<mask>", lstrip=True, normalized=True)]
    tokenizer.add_tokens(added)
    return tokenizer


def gemma():
    tokenizer = Tokenizer(sentencepiece_bpe())
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = llama_decoder()
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False), AddedToken(SPACE * 2, normalized=False)])
    tokenizer.add_tokens([AddedToken("<b>", normalized=False)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    begin_template(tokenizer)
    return tokenizer


def unfused():
    """Characters without bytes: each is <unk>, or is left out where there is no unk_token."""
    model = json.loads(Tokenizer(sentencepiece_bpe()).to_str())["model"]
    model.update(byte_fallback=False, fuse_unk=False, ignore_merges=True)
    tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip(left=False, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=True)
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="never", split=True)
    return tokenizer


def unigram_model(vocab_size=420, byte_fallback=False, **options):
    pieces = pieces_of(train("unigram", vocab_size, byte_fallback=byte_fallback, **options))
    return models.Unigram(pieces, 2 if options.get("unk_id") == 2 else 0, byte_fallback)


# A small table of the kind of SentencePiece's own, which is 240 KB: characters and sequences, and what they become.
RULES = {
    "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u2028": " ", "\u200b": "", "\u00ad": "",
    "\ufeff": "",
    "e\u0301": "\u00e9", "s\u0323\u0307": "\u1e69", "s\u0323": "\u1e63", "n\u0303": "\u00f1", "\u212b": "\u00c5",
    "\ufb01": "fi", "\u00bd": "1\u20442", "\u2167": "VIII", "\uff21": "A", "\uff42": "b", "\uff12": "2",
    "\u2026": "...", "\ufdfa": "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647", "\u3392": "MHz",
    "\uff76\uff9e": "\u30ac", "\uff76": "\u30ab",
    "\U0001d49c": "A", "\u1112\u1161\u11ab": "\ud55c", "\u2075": "5", "\u0130": "i\u0307",
}  # fmt: skip


def train_with_rules(kind, vocab_size, **options):
    """The model has the name of the file with the rules, which is therefore the same in each run."""
    hexes = lambda text: " ".join(f"{ord(c):X}" for c in text)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        pathlib.Path("rules.tsv").write_text("".join(f"{hexes(old)}\t{hexes(new)}\n" for old, new in RULES.items()))
        return train(kind, vocab_size, normalization_rule_tsv="rules.tsv", **options)


def charsmap_of(model):
    message = sentencepiece_model_pb2.ModelProto()
    message.ParseFromString(model)
    return message.normalizer_spec.precompiled_charsmap


def t5():
    tokenizer = Tokenizer(unigram_model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    strip = normalizers.Strip(left=False, right=True)
    charsmap = normalizers.Precompiled(charsmap_of(train_with_rules("unigram", 420)))
    tokenizer.normalizer = normalizers.Sequence([charsmap, strip, spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme="always", split=True)
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return tokenizer


def xlmr():
    tokenizer = Tokenizer(unigram_model(byte_fallback=True, vocab_size=640))
    tokenizer.normalizer = normalizers.NFKC()
    whole = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), whole])
    tokenizer.decoder = llama_decoder(decoders.Strip(" ", 1, 0))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), "<s>", "</s>"])
    return tokenizer


def smollm():
    """A byte-level vocabulary without some bytes, which are left out of texts."""
    model = json.loads(Tokenizer(byte_level_bpe(560)).to_str())["model"]
    missing = list("\u0122\u0123\u0124\u0125\u0126\u00c1\u00d0\u00e1\u00f1\u00f4\u00ec") + ["X", "\u0100", "\u010c"]
    merges = [pair for pair in model["merges"] if not any(byte in "".join(pair) for byte in missing)]
    vocab = {token: 0 for token in model["vocab"] if not any(byte in token for byte in missing)}
    reachable = {left + right for left, right in merges}
    vocab = {token: i for i, token in enumerate(t for t in vocab if len(t) == 1 or t in reachable)}
    merges = [tuple(pair) for pair in merges if all(token in vocab for token in (*pair, "".join(pair)))]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def sentencepiece_cases(processor, prefix):
    """Of texts that name no control piece: the library does not read them."""
    unknown = processor.unk_id()
    for text in TEXTS + MORE_TEXTS + RANDOMS:
        if "\0" in text or any(name in text for name in ("<s>", "</s>", "<unk>", "<pad>")):
            continue
        ids = processor.encode(text)
        decoded, skipped = processor.decode(ids), processor.decode([i for i in ids if i != unknown])
        case = {"text": text, "ids": ids, "decoded": decoded, "skipped": skipped}
        if skipped == decoded:
            del case["skipped"]
        if decoded == text:
            del case["decoded"]
        yield case


def write_folder(name, files, prefix, cases):
    folder = OUTPUT / name
    folder.mkdir(exist_ok=True)
    for file, contents in files.items():
        (folder / file).write_bytes(contents if isinstance(contents, bytes) else (dump(contents) + "\n").encode())
    head = dump({"prefix": prefix, "suffix": []})[:-1]
    (OUTPUT / f"{name}.cases.json").write_text(head + ',"cases":[\n' + ",\n".join(map(dump, cases)) + "\n]}\n")


def write_sentencepiece(name, model, config=None):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    prefix = [processor.bos_id()] if processor.bos_id() >= 0 else []
    files = {"tokenizer.model": model} | ({"tokenizer_config.json": config} if config else {})
    write_folder(name, files, prefix, sentencepiece_cases(processor, prefix))


def write_kimi():
    vocab = json.loads(Tokenizer(byte_level_bpe(700)).to_str())["model"]["vocab"]
    decoder = {c: b for b, c in zip(*byte_alphabet())}
    ranks = {bytes(decoder[c] for c in token): rank for token, rank in vocab.items()}
    special = {name: len(ranks) + i for i, name in enumerate(("[BOS]", "[EOS]", "<|im_end|>"))}
    encoding = tiktoken.Encoding("kimi", pat_str=KIMI_PATTERN, mergeable_ranks=ranks, special_tokens=special)
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
    config = {
        "added_tokens_decoder": {str(i): {"content": name, **flags} for name, i in special.items()},
        "bos_token": "[BOS]", "eos_token": "[EOS]", "tokenizer_class": "TikTokenTokenizer",
    }  # fmt: skip
    lines = b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())

    def cases():
        for text in TEXTS + RANDOMS + ["[BOS]a<|im_end|> b [EOS]"]:
            ids, raw = encoding.encode(text, allowed_special="all"), encoding.encode_ordinary(text)
            skipped = encoding.decode([i for i in ids if i not in special.values()])
            yield {"text": text, "ids": ids, "raw": raw, "skipped": skipped}

    write_folder("kimi", {"tiktoken.model": lines, "tokenizer_config.json": config}, [], cases())


def byte_alphabet():
    """Bytes and the characters that stand for them in byte-level vocabularies."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return plain + others, [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]


def main():
    affixes = {build: {"prefix": ["<s>"]} for build in (llama2, mistral, phi3, gemma)} | {t5: {"suffix": ["</s>"]}}
    for build in (llama2, mistral, phi3, gemma, unfused, t5, xlmr, smollm):
        tokenizer = build()
        (OUTPUT / f"{build.__name__}.json").write_text(dump(json.loads(tokenizer.to_str())) + "\n")
        cases_file = golden(tokenizer, TEXTS + MORE_TEXTS + RANDOMS, **affixes.get(build, {}))
        (OUTPUT / f"{build.__name__}.cases.json").write_text(cases_file + "\n")
    whole = ["<b>", "the mill", SPACE * 4, "\n", "Wo"]
    write_sentencepiece("spm_bpe", train("bpe", 640, user_defined_symbols=whole, control_symbols=["<ctl>"], **LLAMA))
    write_sentencepiece("spm_unigram", train("unigram", 420, user_defined_symbols=["<b>", "the mill"]))
    suffix = train_with_rules("unigram", 640, treat_whitespace_as_suffix=True, byte_fallback=True)
    write_sentencepiece("spm_suffix", suffix)
    write_kimi()


if __name__ == "__main__":
    main()
