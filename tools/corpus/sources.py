"""The packages that the corpus is made of: licence, and how to get documents (lists of paragraphs) out of each."""

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus import formats
from corpus.clean import is_prose, normalise

Document = tuple[str, list[str]]  # name, paragraphs


@dataclass(frozen=True)
class Source:
    name: str  # prefix of the files
    title: str  # what it is, for people
    packages: tuple[str, ...]
    licence: str  # as read in the package's copyright file
    evidence: str  # words that this file must still contain, or the script stops
    documents: Callable[[Path], Iterator[Document]]  # takes the folder of one unpacked package
    prose_only: bool = True  # False where every paragraph belongs: novels, scripture


def clean_document(source: Source, paragraphs: list[str]) -> list[str]:
    cleaned = (normalise(paragraph) for paragraph in paragraphs)
    return [p for p in cleaned if p and (is_prose(p) or not source.prose_only)]


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _austen(root: Path) -> Iterator[Document]:
    database = root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    for lines in formats.r_character_vectors(database.read_bytes()):
        paragraphs = formats.wrapped_paragraphs(lines)
        title = next(p for p in paragraphs if p)
        yield slug(title), [p for p in paragraphs if not re.fullmatch(r"finis|the end\.?", p.strip(), re.IGNORECASE)]


def _sword(root: Path) -> Iterator[Document]:
    for index in sorted(root.glob("usr/share/sword/modules/*/*/*/*.?zs"), reverse=True):  # ot.bzs, then nt.bzs
        osis = formats.sword_text(index.read_bytes(), index.with_suffix(index.suffix[:-1] + "z").read_bytes())
        for name, paragraphs in formats.osis_books(osis):
            yield slug(name), paragraphs


_CITATION = re.compile(r"\s*\[[^\[\]]*\b(?:pp?\.|Op\. Cit|Ibid)[^\[\]]*\]")
_EMPTY_CITATION = re.compile(r"\s*\[(?:Op\. Cit\.|Ibid\.)[^\[\]]*\]")


def _anarchism(root: Path) -> Iterator[Document]:
    lists = {"alinks", "arlinks", "biblio", "book", "contact", "index", "links", "new", "pdf", "translations"}
    for page in sorted((root / "usr/share/doc/anarchism/html").glob("*.html")):
        # The appendices dispute with other authors, line by line, and would be a quarter of the whole corpus.
        if page.stem not in lists and not page.stem.startswith("append"):
            paragraphs = formats.html_paragraphs(page.read_text("utf-8"))
            # A page number after every other sentence would teach the model to write references.
            yield slug(page.stem), [_EMPTY_CITATION.sub("", _CITATION.sub("", p)) for p in paragraphs]


def _handbook(root: Path) -> Iterator[Document]:
    for page in sorted((root / "usr/share/doc/debian-handbook/html/en-US").glob("*.html")):
        yield slug(page.stem), formats.html_paragraphs(page.read_text("utf-8"))


def _jargon(root: Path) -> Iterator[Document]:
    text = gzip.decompress((root / "usr/share/doc/jargon-text/jargon.txt.gz").read_bytes()).decode("utf-8")
    yield "jargon-file", formats.wrapped_paragraphs(text.splitlines())


# Topics with sentences in them; the rest is verse, drawings, transcripts, or jokes at the expense of a people or a sex.
_FORTUNE_TOPICS = (
    "art computers cookie definitions education food goedel humorists law literature love medicine miscellaneous news "
    "people pets platitudes politics science sports startrek tao wisdom work"
).split()


def _fortunes(root: Path) -> Iterator[Document]:
    for topic in _FORTUNE_TOPICS:
        path = root / "usr/share/games/fortunes" / topic
        if not path.exists():
            continue
        fortunes = re.split(r"^%$", path.read_text("utf-8"), flags=re.MULTILINE)
        # The source of a quotation starts with a dash on a line of its own: it is no part of the sentence.
        bodies = (re.split(r"^\s*--+ ?\S", fortune, maxsplit=1, flags=re.MULTILINE)[0] for fortune in fortunes)
        yield topic, [p for body in bodies for p in formats.wrapped_paragraphs(body.splitlines())]


def _wesnoth(root: Path) -> Iterator[Document]:
    """What the campaigns' characters say and the narrator tells: the translatable strings of the scenario files."""
    for campaign in sorted(root.glob("usr/share/games/wesnoth/*/data/campaigns/*")):
        paragraphs = []
        for scenario in sorted(campaign.glob("scenarios/**/*.cfg")):
            text = scenario.read_text("utf-8")
            for string in re.findall(r'(?:message|story|description)\s*=\s*_\s*"((?:[^"]|"")*)"', text):
                string = re.sub(r"<[^>]*>", "", string.replace('""', '"'))
                paragraphs += string.split("\n\n")
        yield slug(campaign.name), paragraphs


_PLAYER = {"<first>": "Alex", "<last>": "Morgan", "<ship>": "Kestrel"}


def _endless_sky(root: Path) -> Iterator[Document]:
    """Conversations of the missions: a paragraph is a line in back-quotes, or a long one in double quotes."""
    line = re.compile(r'^\s*(?:(?:dialog|description|spaceport|log)\s+)?(?:`([^`]*)`|"([^"]{80,})")\s*$', re.MULTILINE)
    for path in sorted((root / "usr/share/games/endless-sky/data").glob("*.txt")):
        paragraphs = [backquoted or quoted for backquoted, quoted in line.findall(path.read_text("utf-8"))]
        for placeholder, value in _PLAYER.items():
            paragraphs = [p.replace(placeholder, value) for p in paragraphs]
        yield slug(path.stem), paragraphs  # those with other placeholders (<planet>) are no prose, and go


_CAMPAIGNS = "did dm dw ei httt l low nr sof sota sotbe thot trow tsg ttb utbs".split()

SOURCES = (
    Source("austen", "Jane Austen's novels", ("r-cran-janeaustenr",),
           "public domain (packaging: MIT)", "License: MIT", _austen, prose_only=False),
    Source("kjv", "King James Bible", ("sword-text-kjv",),
           "public domain (outside the UK)", "License: public-domain", _sword, prose_only=False),
    Source("web", "World English Bible", ("sword-text-web",),
           "public domain", "License: public-domain", _sword, prose_only=False),
    Source("henry", "Matthew Henry's Concise Commentary", ("sword-comm-mhcc",),
           "public domain", "License: public-domain", _sword),
    Source("anarchism", "An Anarchist FAQ", ("anarchism",),
           "GPL-2", "License: GPL-2", _anarchism),
    Source("handbook", "The Debian Administrator's Handbook", ("debian-handbook",),
           "GPL-2+ or CC-BY-SA-3.0", "GPL-2.0+ or CC-BY-SA-3.0", _handbook),
    Source("jargon", "The Jargon File", ("jargon-text",),
           "public domain", "is in the public domain", _jargon),
    Source("fortunes", "Fortune cookies", ("fortunes",),
           "BSD", "Regents of the University of California", _fortunes),
    Source("wesnoth", "Campaigns of The Battle for Wesnoth", tuple(f"wesnoth-1.16-{c}" for c in _CAMPAIGNS),
           "GPL-2+", "/usr/share/common-licenses/GPL-2", _wesnoth),
    Source("endless-sky", "Conversations of Endless Sky", ("endless-sky-data",),
           "GPL-3+", "License: GPL-3+", _endless_sky),
)  # fmt: skip
HELD_OUT = ("austen", "persuasion")  # the validation split: one whole novel
