"""Cleaning that all sources share: one spelling for punctuation, a test for prose, and duplicates."""

import re
import unicodedata
import zlib
from array import array
from hashlib import blake2b

# Sources disagree on typography (the novels have straight quotes and "--"). A small vocabulary should not spend tokens
# on telling them apart, so everything is written the way the novels are.
_PUNCTUATION = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u02bc": "'", "\u00b4": "'",
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2212": "-",
        "\u2014": "--", "\u2015": "--", "\u2026": "...",
        "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl",
        "\u00ad": None, "\u200b": None, "\u200c": None, "\u200d": None, "\u2060": None, "\ufeff": None,
    }
)  # fmt: skip
_EMPHASIS = re.compile(r"(?<!\w)_([^_\n]+)_(?!\w)")
_SPACE_BEFORE = re.compile(r" +([,.;:!?)\]])(?!\.)")


def normalise(paragraph: str) -> str:
    """NFC, plain quotes and dashes, no markers of emphasis, no control characters, single spaces."""
    text = unicodedata.normalize("NFC", paragraph).translate(_PUNCTUATION)
    text = text.replace("``", '"').replace("''", '"')
    if not (text.isascii() and text.isprintable()):
        text = "".join(" " if unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp") else c for c in text)
    text = _EMPHASIS.sub(r"\1", text)
    return _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))


_COMMON_WORDS = frozenset(
    "the of and to a in that is was he for it with as his on be at by i this had not are but from or have an they "
    "which one you were her all she there would their we him been has when who will more no if out so said what up its "
    "about into than them can only other new some could time these two may then do first any my now such like our "
    "over".split()
)
_NOT_PROSE = re.compile(r"https?://|www\.|[\\{}|<>=~^ÂÃ¢•→]|@\w|\$\w|/\w+/\w")


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph reads as English sentences rather than a heading, code, a list of names or a reference.

    Three signs: it ends like a sentence, nearly all characters are letters, and at least a quarter of the words are
    among the hundred commonest (running English has about a half, lists and titles far fewer).
    """
    words = re.findall(r"[A-Za-z']+", paragraph)
    if len(words) < 8 or _NOT_PROSE.search(paragraph) or paragraph.rstrip("\"')]")[-1:] not in tuple(".!?:;"):
        return False
    letters = sum(c.isalpha() or c in " ,.'\"" for c in paragraph)
    common = sum(word.lower() in _COMMON_WORDS for word in words)
    return letters >= 0.93 * len(paragraph) and common >= 0.25 * len(words)


class Deduplicator:
    """Remembers paragraphs, ignoring case and punctuation."""

    SHORTEST = 60  # characters

    def __init__(self) -> None:
        self.seen_: set[bytes] = set()

    @staticmethod
    def key(paragraph: str) -> bytes:
        return blake2b(re.sub(r"[\W_]+", "", paragraph.lower()).encode(), digest_size=12).digest()

    def is_new(self, paragraph: str) -> bool:
        """Short paragraphs ("Yes.") may recur: dialogue needs them."""
        return len(paragraph) < self.SHORTEST or self.is_new_key(self.key(paragraph))

    def is_new_key(self, key: bytes) -> bool:
        if key in self.seen_:
            return False
        self.seen_.add(key)
        return True


def windows(paragraph: str, length: int) -> list[str]:
    """All runs of `length` words, ignoring case and punctuation; the whole paragraph if it is shorter."""
    words = re.findall(r"[^\W_]+", paragraph.lower())
    return [" ".join(words[i : i + length]) for i in range(max(1, len(words) - length + 1))]


HELD_OUT_WORDS = 13


def quotes(paragraph: str, held_out: frozenset[str]) -> bool:
    """Whether a run of HELD_OUT_WORDS words of the paragraph is among `held_out`, the runs of the held-out text."""
    return not held_out.isdisjoint(windows(paragraph, HELD_OUT_WORDS))


def fingerprints(paragraph: str) -> array:
    """32-bit digests of the paragraph's runs of eight words, for NearDuplicates."""
    return array("I", (zlib.crc32(window.encode()) for window in windows(paragraph, 8)))


class NearDuplicates:
    """Finds paragraphs most of whose runs of eight words have been read before, in any paragraphs.

    A set of 2^32 bits (512 MiB), one for each digest: after 60 million runs 1.4 % of the bits are set, which is how
    often a new run looks like an old one. That does not make half of a paragraph's runs look old.
    """

    def __init__(self) -> None:
        self.bits_ = bytearray(1 << 29)

    def is_new(self, digests: array) -> bool:
        """Remembers the paragraph if at most half of its runs are known."""
        bits = self.bits_
        known = sum(bits[d >> 3] >> (d & 7) & 1 for d in digests)
        if 2 * known > len(digests):
            return False
        for d in digests:
            bits[d >> 3] |= 1 << (d & 7)
        return True
