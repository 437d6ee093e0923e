#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: small tokenizers of the kinds foe reads, and what Hugging Face's `tokenizers` makes
of texts that are hard to tokenise.

    tools/venv.sh build/tools-venv tools/requirements.txt && build/tools-venv/bin/python tools/make_tokenizer_goldens.py

gpt2, llama3, qwen2 and olmoe have the configuration of those models over a small vocabulary trained on the text below.
NAME.json is a tokenizer.json, NAME.cases.json has {prefix, suffix, cases}. variants.json is a list of {name, base,
patch, prefix, suffix, cases}: the tokenizer is BASE.json with PATCH merged in (RFC 7396). The prefix and suffix are the
ids that the post-processor adds. A case is {text, ids}, without what the post-processor adds, and, where they are not
the same,
  raw      ids with the special tokens in the text not parsed (default: ids)
  decoded  the text of ids (default: text)
  skipped  the same without special tokens (default: decoded)
"""

import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/tokenizer"
SEED = 20260506
RANDOM_TEXTS = 200

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK_PATTERNS = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
]
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TRAINING_TEXT = """
The miller counted the sacks twice, and then a third time, because the river had risen in the night and nothing was
where it had been. There were forty-one of them; there should have been forty-three. He said so to his daughter, who
said that she'd seen two men on the bridge, that they weren't from here, and that it wasn't her business to ask.
"You'll find them," she said, "or you won't." It's the sort of thing people say. The water ran under the floor, the
wheel turned, and the two of them stood there, thinking of the winter, of the bread, and of the long road to the
market town.
Tokens per second, experts per token, groups of heads: 1 2 3 10 12 100 128 256 1024 2048
4096 1999 2026 3.14159 0.001 1e-6.
Der Müller zählte die Säcke zweimal, weil der Fluss über Nacht gestiegen war; schließlich fehlten zwei. Le meunier était
déjà là, où la rivière dépassait le pont. El niño comió la piña mañana. Мельник пересчитал мешки дважды, потому что река
поднялась ночью. Ο μυλωνάς μέτρησε τα σακιά δύο φορές. 風車小屋の主人は袋を二度数えた。夜のうちに川が増えたからだ。
磨坊主人把袋子数了两遍,因为夜里河水涨了。 방앗간 주인은 자루를 두 번 세었다. चक्कीवाले ने बोरियाँ दो बार गिनीं। عدّ الطحان الأكياس مرتين.
def forward(x, weights):
    for layer in weights:
        x = x + attention(norm(x), layer)
        x = x + experts(norm(x), layer)  # one sum per layer
    return x
int main(int argc, char** argv) {
  std::vector<float> values(argc, 0.0f);
  for (int i = 0; i < argc; ++i) values[i] += std::strlen(argv[i]);
  return values.empty() ? 1 : 0;
}
"""

TEXTS = [
    "", " ", "a", "Hello, world!", "The water ran under the floor, and the two of them stood there.",
    "She'd said they'll go; it's what we've DONE. I'M, YOU'RE, HE'LL, 'Tis, don't''s 'S 'Re",
    "'\u017f '\u212a can\u2019t '\u017fs", "forty-one forty_one FortyOne fortyOne FORTY",
    # other scripts
    "Straße, Fußgängerübergang, Œuvre, naïve, Łódź, İstanbul ıI",
    "e\u0301 é e\u0323\u0307 \u1e69 s\u0323\u0307 \u212b Å ﬁ ½ Ⅷ ２０２６ ﷺ",
    "Мельник пересчитал мешки дважды.", "Ο μυλωνάς μέτρησε τα σακιά.", "風車小屋の主人は袋を二度数えた。ｶﾞ", "磨坊主人把袋子数了两遍,因为夜里河水涨了。",
    "방앗간 주인은 자루를 두 번 세었다. \u1112\u1161\u11ab", "चक्कीवाले ने बोरियाँ दो बार गिनीं।",
    "عدّ الطحان الأكياس مرتين. \u202bשלום\u202c", "ไทยไม่มีช่องว่าง", "ქართული հայերեն አማርኛ",
    "𝒜𝓁𝑔𝑒𝒷𝓇𝒶 𐍈 𠜎𠜱 \U0001f1e9\U0001f1ea",
    # code
    "def forward(x, weights):\n    for layer in weights:\n\tx += 1\n\n    return x\n",
    "if (a<=b&&c!=d) { x->y[i++] = ~z; } // ok",
    "https://example.org/a?b=c&d=%20#e", "<|endoftext", "{\"k\": [1, 2.5e-3, null]}", "\\u00e9 \\n \\\\",
    # digits
    "1 12 123 1234 12345 123456 1234567", "3.14159 1,000,000 0xff 1e-6 2026-05-06T07:08:09Z",
    "٣٤٥ ५६७ ²³ ①② ⅯⅭ 一二三 𝟙𝟚𝟛",
    # emoji
    "👍 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 ❤️ 🤷🏻‍♀️ #️⃣ 🇫🇷", "a👩‍💻b\u200dc\ufe0f",
    # white space
    "  two", "two  ", "   ", "\t\ttabs\tand spaces \t ", "a\r\nb\rc\nd\n\n\ne", "\n", "\r\n", " \n ", "  \n  \n  x",
    "a \n", "a\n ",
    "nb\u00a0sp\u00a0\u00a0x", "ls\u2028ps\u2029nel\u0085vt\u000bff\u000cx", "\u3000wide\u3000\u3000x",
    "en\u2002em\u2003thin\u2009 hair\u200a zero\u200bx \u2060y \ufeffz",
    "ogham\u1680x mongolian\u180ex \u180e\u180e y", "x          y", " " * 50 + "x", "x" + " " * 30, "\n" * 9,
    # control characters
    "\x00", "a\x00b\x00\x00c", "\x01\x02\x1b[0m\x7f\x80\x9f", "bell\x07 esc\x1b del\x7f",
    "\ufffd \ufffe \uffff \U0010ffff \ue000",
    # long words
    "a" * 200, "ab" * 100, "the" * 60, "é" * 70, "-" * 100, "!?" * 40, "1" * 77, "antidisestablishmentarianism" * 4,
    "ñ" + "n\u0303" * 20,
    "a" + "\u0301\u0323\u0327" * 12 + "b",
    # special and added tokens
    "<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b", "<|endoftext|><|endoftext|>", "<|endoftext|",
    "|endoftext|>", "<<|endoftext|>>",
    "<|begin_of_text|>Hi<|eot_id|>", "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "|||IP_ADDRESS||| at |||EMAIL_ADDRESS|||",
    "<left>", "x  <left>  y", "\u00a0\n<left> <left>y", "x  <right>  y", "<right>\n\n<right>\u2003z",
    "x \t<both>\t y <both><both> ",
    "word", "a word.", "words sword word_ _word word's «word» wordé word1 \u0301word word\u200d", "word word",
    "wordword",
    "<x><xy><xyz><xyzz>", "<xy <xyz", "ﬁne \u1e68clair ½cup", "fine \u1e68clair S\u0323\u0307clair",
    "a<\u1e69>b <s\u0307\u0323>", "<right>  <left>", "<right>word <both>word",
]  # fmt: skip


def random_texts(count):
    """Short strings over all of Unicode, in the blocks and characters where tokenizers go wrong more often than not."""
    rng = random.Random(SEED)
    # Characters that this Python's Unicode (14.0) does not know are classified differently by newer libraries.
    planes = [(0x20, 0x7E)] * 4 + [(0x80, 0x24F), (0x300, 0x36F), (0x370, 0x6FF), (0x900, 0xDFF), (0x1100, 0x11FF)]
    planes += [(0x2000, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFD)]
    planes += [(0x10000, 0x1FFFF), (0x20000, 0x2FA1F), (0, 0x1F)]
    sticky = list(" \t\r\n'.,_-0123456789") + ["\u00a0", "\u2028", "\u200d", "\ufe0f", "'s", "'LL", "  ", "\r\n"]

    def character():
        if rng.random() < 0.35:
            return rng.choice(sticky)
        while True:
            point = rng.randint(*rng.choice(planes))
            if unicodedata.category(chr(point)) not in ("Cn", "Cs"):
                return chr(point)

    return ["".join(character() for _ in range(rng.randint(1, 14))) for _ in range(count)]


def byte_level_bpe(vocab_size, ignore_merges=False):
    """A BPE model trained on the text above, cut into words by GPT-2's pattern."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([TRAINING_TEXT], trainer)
    model = json.loads(trained.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    if ignore_merges:  # words that no merges reach: only ignore_merges finds them
        for word in ["ĠunderĠthe", "Ġexperts", "Ġdaughter", "Ġforty", "ĠMÃ¼ller", "xyz"]:
            vocab.setdefault(word, len(vocab))
        merges = [pair for i, pair in enumerate(merges) if i % 7 != 5]
        reachable = {a + b for a, b in merges}
        merges = [(a, b) for a, b in merges if all(len(t) == 1 or t in reachable for t in (a, b))]
    return models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges)


def gpt2():
    tokenizer = Tokenizer(byte_level_bpe(560))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def llama3():
    tokenizer = Tokenizer(byte_level_bpe(700, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = "begin_of_text end_of_text start_header_id end_header_id eot_id".split()
    tokenizer.add_special_tokens([f"<|{name}|>" for name in special])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|> $B",
        special_tokens=[("<|begin_of_text|>", begin)],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def qwen2():
    tokenizer = Tokenizer(byte_level_bpe(600))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def olmoe():
    tokenizer = Tokenizer(byte_level_bpe(640))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    tokenizer.add_tokens([AddedToken(f"|||{name}|||", normalized=False) for name in ("IP_ADDRESS", "EMAIL_ADDRESS")])
    tokenizer.add_special_tokens(["<|endoftext|>", "<|padding|>"])
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B", special_tokens=[("<|endoftext|>", end)]
    )
    return tokenizer


def variants(base):
    """(name, patch) pairs over the gpt2 tokenizer."""
    first = max(base.get_vocab().values()) + 1

    def added(*tokens):
        end_of_text = json.loads(base.to_str())["added_tokens"]
        keys = ("single_word", "lstrip", "rstrip", "normalized", "special")
        listed = [
            {"id": first + i, "content": content, **{key: key in flags for key in keys}}
            for i, (content, *flags) in enumerate(tokens)
        ]
        return {"added_tokens": end_of_text + listed}

    def steps(*before, **byte_level):
        last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False, **byte_level}
        return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*before, last]}}

    def split(behavior, pattern, invert=False):
        return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}

    strips = added(
        ("<left>", "lstrip", "special"),
        ("<right>", "rstrip"),
        ("<both>", "lstrip", "rstrip", "special"),
        ("word", "single_word"),
        ("<x>",),
        ("<xy>", "special"),
        ("<xyz", "normalized"),
        ("fine", "normalized"),
        ("\u1e68clair", "normalized", "single_word"),
        ("<\u1e69>", "normalized"),
    )
    yield "strips", strips
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield f"strips_{form}", {**strips, "normalizer": {"type": form}}
    yield "nfd_then_nfkc", {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "NFKC"}]}}
    yield "prefix_space", {**strips, **steps(add_prefix_space=True, use_regex=True)}
    yield "prefix_space_no_regex", steps(add_prefix_space=True)
    yield "no_regex", steps()
    yield "digits", steps({"type": "Digits", "individual_digits": True}, use_regex=True)
    yield "digit_runs", steps({"type": "Digits", "individual_digits": False}, use_regex=True)
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            yield f"{behavior}_{invert}", steps(split(behavior, {"Regex": r"[\s\p{P}]"}, invert))
    yield "text_pattern", steps(split("Isolated", {"String": "th"}), split("MergedWithPrevious", {"String": ". "}))
    yield "empty_matches", steps(split("MergedWithPrevious", {"Regex": r"x*|(?=e)"}))
    lines = r"^.|.$|(?<=,)\s?+|\p{Han}+?|[^\S\n]{2,3}|\p{^L}{2}|\x{e9}|\x61|[\d\-\]]+"
    yield "lines", steps(split("Isolated", {"Regex": lines}))
    yield "deepseek", steps(*(split("Isolated", {"Regex": pattern}) for pattern in DEEPSEEK_PATTERNS))
    yield "o200k", steps(split("Isolated", {"Regex": O200K_PATTERN}))


def cases(tokenizer, texts, prefix, suffix):
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text).ids == prefix + ids + suffix
        tokenizer.encode_special_tokens = True
        raw = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        skipped = tokenizer.decode(ids, skip_special_tokens=True)
        case = {"text": text, "ids": ids, "raw": raw, "decoded": decoded, "skipped": skipped}
        for name, default in (("skipped", decoded), ("decoded", text), ("raw", ids)):
            if case[name] == default:
                del case[name]
        yield case


def dump(value):
    return json.dumps(value, separators=(",", ":"))


def golden(tokenizer, texts, prefix=(), suffix=(), **about):
    """A JSON object with a line for each case."""
    prefix, suffix = [[tokenizer.token_to_id(token) for token in tokens] for tokens in (prefix, suffix)]
    head = dump({**about, "prefix": prefix, "suffix": suffix})[:-1]
    return head + ',"cases":[\n' + ",\n".join(map(dump, cases(tokenizer, texts, prefix, suffix))) + "\n]}"


def main():
    OUTPUT.mkdir(parents=True, exist_ok=True)
    randoms = random_texts(RANDOM_TEXTS)
    affixes = {llama3: {"prefix": ["<|begin_of_text|>"]}, olmoe: {"suffix": ["<|endoftext|>"]}}
    for build in (gpt2, llama3, qwen2, olmoe):
        tokenizer = build()
        (OUTPUT / f"{build.__name__}.json").write_text(dump(json.loads(tokenizer.to_str())) + "\n")
        cases_file = golden(tokenizer, TEXTS + randoms, **affixes.get(build, {}))
        (OUTPUT / f"{build.__name__}.cases.json").write_text(cases_file + "\n")
    base = gpt2()
    patched = []
    for name, patch in variants(base):
        tokenizer = Tokenizer.from_str(json.dumps({**json.loads(base.to_str()), **patch}))
        # The texts with added tokens matter to the variants that have them, the others to those that do not.
        short = [text for text in TEXTS if len(text) < 60 and ("added_tokens" in patch or "<" not in text)]
        patched.append(golden(tokenizer, short + randoms[::20], name=name, base="gpt2", patch=patch))
    (OUTPUT / "variants.json").write_text("[" + ",\n".join(patched) + "]\n")


if __name__ == "__main__":
    main()
