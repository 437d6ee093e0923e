"""Readers for manual pages, plain text with light mark-up, and comments of source code. Each returns paragraphs."""

import re

from corpus.formats import wrapped_paragraphs

_ROFF_ESCAPES = (
    (re.compile(r'\\".*'), ""),
    (re.compile(r"\\f(?:\(..|\[[^\]]*\]|.)|\\s[-+]?\d|\\[&|^/,:%cdu]"), ""),
    (re.compile(r"\\(?:\((?:aq|cq|oq)|\[(?:aq|cq|oq)\])"), "'"),
    (re.compile(r"\\(?:\((?:lq|rq|dq)|\[(?:lq|rq|dq)\]|\*[(\[](?:lq|rq|L\"|R\")\]?)"), '"'),
    (re.compile(r"\\(?:\(em|\[em\]|\*\(--)"), "--"),
    (re.compile(r"\\(?:\((?:en|hy|mi)|\[(?:en|hy|mi)\]|-)"), "-"),
    (re.compile(r"\\[ ~0]"), " "),
    (re.compile(r"\\(?:\(..|\[[^\]]*\]|\*(?:\(..|\[[^\]]*\]|.))"), ""),
    (re.compile(r"\\e"), "\\\\"),
)
_ROFF_BREAKS = frozenset("SH SS PP P LP TP IP HP TQ RS RE sp br Sh Ss Pp It Bl El Nd Dd".split())
_ROFF_SKIPPED = {"nf": "fi", "EX": "EE", "TS": "TE", "Bd": "Ed", "ig": ".", "de": ".", "Vb": "Ve"}
_ROFF_ALTERNATING = frozenset("BR RB IR RI BI IB SB".split())
_ROFF_FONTS = frozenset("B I R SM".split())
_MDOC_CALLABLE = frozenset(
    "Ad An Ap Ar Bq Brq Cd Cm Dl Dq Dv Em Er Ev Fa Fl Fn Ft Ic In Li Lk Ms Mt Nm No Ns Op Pa Pq Ql Qq Sq Sx Sy Tn Ux "
    "Va Vt Xr Aq Fx Bx At Nx Ox Bc Bo Do Dc Po Pc Oo Oc Qo Qc So Sc".split()
)
_MDOC_DROPPED = frozenset("Dt Os Nd St Rs Re Lb Xo Xc Bk Ek An Fn Fo Fc Ft Vt In".split())
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|(\S+)')


def _mdoc_text(name: str, arguments: list[str], page_name: str) -> str:
    """What a line of the mdoc language says, without the fonts of its words."""
    if name == "Xr" and len(arguments) > 1:
        return f"{arguments[0]}({arguments[1]}){''.join(arguments[2:])}"
    words = [word for word in arguments if word not in _MDOC_CALLABLE]
    if name == "Nm" and not [word for word in words if word[:1].isalnum()]:
        words.insert(0, page_name)
    return ("-" if name == "Fl" else "") + " ".join(words)


def man_paragraphs(page: str) -> list[str]:
    """The paragraphs of a manual page in roff's man or mdoc language, without headings, tags of lists and examples."""
    paragraphs, lines, until, drop_next, page_name = [], [], None, False, ""
    for line in page.splitlines():
        macro = re.match(r"[.']\s*(\S*)\s*(.*)", line)
        name, rest = macro.groups() if macro else ("", line)
        if until is not None:
            if name == until:
                until = None
            continue
        for pattern, replacement in _ROFF_ESCAPES:
            rest = pattern.sub(replacement, rest)
        if name in _ROFF_SKIPPED:
            until = _ROFF_SKIPPED[name]
        if not line.strip() or name in _ROFF_BREAKS or until is not None:
            paragraphs.append(" ".join(lines))
            lines.clear()
            drop_next = name in ("TP", "TQ")
            continue
        if drop_next:  # the tag of a paragraph
            drop_next = False
            continue
        if not macro:
            lines.append(rest)
            continue
        arguments = [(quoted or word).replace('""', '"') for quoted, word in _ARGUMENT.findall(rest)]
        if name in _ROFF_ALTERNATING:
            lines.append("".join(arguments))
        elif name in _ROFF_FONTS:
            lines.append(" ".join(arguments))
        elif name in _MDOC_CALLABLE and name not in _MDOC_DROPPED:
            page_name = page_name or (arguments[0] if name == "Nm" and arguments else "")
            lines.append(_mdoc_text(name, arguments, page_name))
    return paragraphs + [" ".join(lines)]


_MARKS = (
    (re.compile(r":[\w:+.-]+:`~?\.?([^`<]*?)\s*(?:<[^`>]*>)?`_{0,2}"), r"\1"),  # a role of reStructuredText
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}"), r"\1"),
    # POD
    (re.compile(r"\b[A-Z](?:<<+ (.*?) >>+|<([^<>|]*\|)?([^<>]*)>)"), lambda m: m[1] or (m[2] or "|")[:-1] or m[3] or ""),
    (re.compile(r"!?\[([^\[\]]+)\]\([^()\s]*\)"), r"\1"),  # a link of Markdown
    (re.compile(r"\b[A-Z]\(([^()]*)\)"), r"\1"),  # Ansible
    (re.compile(r"`([^`'\n]+)'"), r"'\1'"),  # GNU's old quotes
    (re.compile(r"`+"), ""),
    (re.compile(r"\*\*?(\w[^*\n]*)\*\*?"), r"\1"),
    (re.compile(r"\|([A-Za-z][\w-]*)\|"), r"\1"),  # a link of Vim's help
)
_ITEM = re.compile(r"^(\s*)(?:[-*+o•]|\(?\d{1,3}[.)]|#\.)\s+", re.MULTILINE)
_LINES_WITHOUT_PROSE = re.compile(r"^\s*(?:\.\. .*|:[\w -]+:.*|=\w+.*|#+ .*|@\w+.*|[-=~^*#+.]{3,})$", re.MULTILINE)


def text_paragraphs(text: str) -> list[str]:
    """Paragraphs of plain text, reStructuredText, Markdown, POD, AsciiDoc or info; an item of a list is one."""
    text = _LINES_WITHOUT_PROSE.sub("\n", text.replace("\x1f", "\n\n").replace("\r\n", "\n"))
    paragraphs = wrapped_paragraphs(_ITEM.sub("\n\n", text).split("\n"))
    for pattern, replacement in _MARKS:
        paragraphs = [pattern.sub(replacement, paragraph) for paragraph in paragraphs]
    return paragraphs


_COMMENTS = {
    "c": re.compile(r"/\*(.*?)\*/|((?:^[ \t]*//[^\n]*\n)+)", re.DOTALL | re.MULTILINE),
    "go": re.compile(r"/\*(.*?)\*/|((?:^[ \t]*//[^\n]*\n)+)", re.DOTALL | re.MULTILINE),
    "el": re.compile(r"((?:^[ \t]*;[^\n]*\n)+)", re.MULTILINE),
    "py": re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'|((?:^[ \t]*#[^\n]*\n)+)', re.DOTALL | re.MULTILINE),
}
_COMMENTS["h"] = _COMMENTS["c"]
_COMMENT_LEADER = re.compile(r"^[ \t]*(?:\*+|//+!?|;+|#+)?[ \t]?", re.MULTILINE)


def comment_paragraphs(code: str, language: str) -> list[str]:
    """Paragraphs of the comments of a source file, and of Python's long strings; `language` is the file's suffix."""
    paragraphs = []
    for groups in _COMMENTS[language].finditer(code):
        comment = next(group for group in groups.groups() if group is not None)
        if len(comment) > 60:
            paragraphs += text_paragraphs(_COMMENT_LEADER.sub("", comment))
    return paragraphs


_WEBSTER = re.compile(
    r"\[(?:\d{4} Webster|PJC|WordNet[^\]]*|[A-Z][\w. ]*)(?:[ +][^\]]*)?\]|\{|\}|^\s*\d+\.\s", re.MULTILINE
)


def dictionary_paragraphs(text: str) -> list[str]:
    """Definitions and quotations of the GNU Collaborative International Dictionary of English, without sources."""
    paragraphs = wrapped_paragraphs(_WEBSTER.sub("\n\n", text).splitlines())
    return [re.sub(r"\s*--\s?[A-Z][\w. ()']*$", "", paragraph) for paragraph in paragraphs]
