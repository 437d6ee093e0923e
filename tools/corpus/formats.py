"""Readers for the file formats in which Debian packages store English text. Each returns plain strings."""

import html
import re
import struct
import zlib


def r_character_vectors(data: bytes) -> list[list[str]]:
    """The character vectors of an R lazy-load database (.rdb), in file order.

    A database is a run of records: a big-endian u32 (size of the unpacked object), then a zlib stream. Each unpacked
    object is XDR (R Internals, "Serialization Formats"); only plain character vectors are understood.
    """
    vectors = []
    position = 0
    while position < len(data):
        (size,) = struct.unpack_from(">I", data, position)
        stream = zlib.decompressobj()
        unpacked = stream.decompress(data[position + 4 :])
        if not stream.eof or len(unpacked) != size:
            raise ValueError(f"record at byte {position}: expected {size} unpacked bytes, found {len(unpacked)}")
        vectors.append(_xdr_strings(unpacked))
        position = len(data) - len(stream.unused_data)
    return vectors


_STRSXP, _CHARSXP, _MISSING = 16, 9, 0xFFFFFFFF  # R's type numbers; the length of a missing string


def _xdr_strings(data: bytes) -> list[str]:
    magic, version = data[:2], struct.unpack_from(">I", data, 2)[0]
    if magic != b"X\n" or version not in (2, 3):
        raise ValueError(f"expected XDR serialization version 2 or 3, found {magic!r} version {version}")
    position = 14  # magic, format version, writer's and oldest reader's R version
    if version == 3:
        position += 4 + struct.unpack_from(">I", data, position)[0]  # native encoding's name
    flags, count = struct.unpack_from(">II", data, position)
    if flags & 0xFF != _STRSXP:
        raise ValueError(f"expected a character vector (type {_STRSXP}), found type {flags & 0xFF}")
    position += 8
    strings = []
    for _ in range(count):
        flags, length = struct.unpack_from(">II", data, position)
        if flags & 0xFF != _CHARSXP or length == _MISSING:
            raise ValueError(f"expected a string (type {_CHARSXP}), found type {flags & 0xFF}, length {length}")
        position += 8
        strings.append(data[position : position + length].decode("utf-8"))
        position += length
    return strings


def sword_text(index: bytes, blocks: bytes) -> str:
    """All text of one testament of a compressed SWORD module (.?zs and .?zz files), in order, as OSIS markup.

    The index is a run of little-endian u32 triples: offset, packed size and unpacked size of a zlib block. The verse
    index (.?zv) is not needed: a commentary's paragraph on several verses is stored once and linked from each.
    """
    parts = []
    for offset, packed, unpacked in struct.iter_unpack("<III", index):
        block = zlib.decompress(blocks[offset : offset + packed])
        if len(block) != unpacked:
            raise ValueError(f"block at byte {offset}: expected {unpacked} bytes, found {len(block)}")
        parts.append(block)
    return b"".join(parts).decode("utf-8")


_OSIS_DROPPED = re.compile(r"<(note|title)\b[^>]*?(?<!/)>.*?</\1>", re.DOTALL)
_OSIS_BREAK = re.compile(r'<(?:(?:chapter|lg|p|lb)\b|div\b[^>]*type="(?:x-p|section|majorSection)")[^>]*>|¶')
_OSIS_INLINE = re.compile(r"</?(?:w|q|hi|seg|transChange|divineName|name|foreign|reference|inscription)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")


_OSIS_BOOK = re.compile(r'<div\b(?=[^>]*\bsID=)(?=[^>]*type="book")[^>]*osisID="([^"]+)"[^>]*>')
_OSIS_BOOK_END = re.compile(r'<div\b(?=[^>]*\beID=)[^>]*type="book"[^>]*>')


def osis_books(osis: str) -> list[tuple[str, list[str]]]:
    """Name and paragraphs of each book: without notes and titles, verses run on, lines of verse joined."""
    _, *parts = _OSIS_BOOK.split(osis)
    return [(name, _osis_paragraphs(_OSIS_BOOK_END.split(body)[0])) for name, body in zip(parts[::2], parts[1::2])]


def _osis_paragraphs(osis: str) -> list[str]:
    text = _OSIS_BREAK.sub("\n\n", _OSIS_DROPPED.sub(" ", osis))
    text = text.replace("</w><w", "</w> <w")  # some files lack the space between two words
    text = html.unescape(_TAG.sub(" ", _OSIS_INLINE.sub("", text)))
    return text.split("\n\n")


_MARKUP_BLOCKS = frozenset(
    "p div li dt dd blockquote h1 h2 h3 h4 h5 h6 td th tr br hr section "  # HTML
    "para simpara listitem term item title".split()  # DocBook and Mallard
)
_MARKUP_SKIPPED = frozenset("head script style pre table nav screen programlisting".split())
_MARKUP_TAG = re.compile(r"<!--.*?-->|<(/?)([a-zA-Z][a-zA-Z0-9]*)[^>]*>|<[!?/][^>]*>", re.DOTALL)


def html_paragraphs(page: str) -> list[str]:
    """Text of the block elements of a page, without preformatted text and tables. Takes DocBook and Mallard, too."""
    paragraphs, pieces, skipping, position = [], [], 0, 0
    for tag in _MARKUP_TAG.finditer(page):
        if not skipping:
            pieces.append(page[position : tag.start()])
        position = tag.end()
        name = (tag[2] or "").lower()
        if name in _MARKUP_SKIPPED:
            skipping = max(0, skipping - 1) if tag[1] else skipping + (not tag[0].endswith("/>"))
        if name in _MARKUP_BLOCKS:
            paragraphs.append(html.unescape("".join(pieces)))
            pieces.clear()
    if not skipping:
        pieces.append(page[position:])
    return paragraphs + [html.unescape("".join(pieces))]


def wrapped_paragraphs(lines: list[str]) -> list[str]:
    """Undoes hard line wrapping: runs of non-blank lines become paragraphs."""
    text = "\n".join(line.strip() for line in lines)
    return [paragraph.replace("\n", " ") for paragraph in re.split(r"\n{2,}", text)]
