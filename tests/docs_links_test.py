#!/usr/bin/env python3
"""Holds README.md and docs/ to links that lead somewhere. Standard library only.

    tests/docs_links_test.py

Prints each broken link as file:line. A link is relative: its file must exist, and with #anchor the file must have a heading
of which GitHub makes that anchor. Links to other sites are not followed. The samples below show that each rule can fail.
"""

import re
import sys
import unittest

from tree_rule import check_repository, check_samples

LINK = re.compile(r"\]\(([^()\s]+)\)")  # its text may have begun on the line before
HEADING = re.compile(r"#{1,6} +(.*)")
ELSEWHERE = re.compile(r"[a-z]+:")


def text_lines(path):
    """The lines of a page and their numbers, without code: blocks that are fenced or indented by four, and `spans`."""
    fenced, before = False, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = line.lstrip().startswith("```")
        # Indented lines are code only behind an empty line or other code; within a list item they go on with its text.
        code = line.startswith("    ") and (not before.strip() or before.startswith("    "))
        if not fence and not fenced and not code:
            yield number, line
        fenced ^= fence
        before = line


def anchors(path):
    found = {}
    for _, line in text_lines(path):
        heading = HEADING.match(line)
        if not heading:
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
    return {anchor if i == 0 else f"{anchor}-{i}" for anchor, last in found.items() for i in range(last + 1)}


def broken_links(root):
    found = []
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for number, line in text_lines(page):
            for target in LINK.findall(re.sub(r"`[^`]*`", "``", line)):
                if ELSEWHERE.match(target):
                    continue
                path, _, anchor = target.partition("#")
                file = page.parent / path if path else page
                place = f"{page.relative_to(root)}:{number}"
                if not file.resolve().is_relative_to(root.resolve()) or not file.exists():
                    found.append(f"{place}: there is no {target}")
                elif anchor and (file.suffix != ".md" or anchor not in anchors(file)):
                    found.append(f"{place}: {target} has no such heading")
    return found


# What is wrong: the files, and the start of the one line that says so (None: nothing is).
SAMPLES = {
    "a file": ({"README.md": "[a](docs/a.md)\n", "docs/a.md": "[back](../README.md)\n"}, None),
    "no file": ({"README.md": "\n[a](docs/a.md)\n"}, "README.md:2: there is no docs/a.md"),
    "a picture": ({"README.md": "![a](docs/a.png)\n"}, "README.md:1: there is no docs/a.png"),
    "an anchor": ({"README.md": "[a](docs/a.md#of-a--and-b-2)\n",
                   "docs/a.md": "## Of `a` & [and](a.md)?? b-2\n\n[x](a.md#of-a--and-b-2)\n"}, None),
    "no anchor": ({"README.md": "[a](docs/a.md#b)\n", "docs/a.md": "# a\n"}, "README.md:1: docs/a.md#b has no such"),
    "of the page": ({"README.md": "# a\n[a](#b)\n"}, "README.md:2: #b has no such"),
    "the second of two": ({"README.md": "# a\n# a\n[a](#a-1)\n"}, None),
    "the third of two": ({"README.md": "# a\n# a\n[a](#a-2)\n"}, "README.md:3: #a-2 has no such"),
    "a folder": ({"README.md": "[a](docs)\n", "docs/a.md": ""}, None),
    "outside": ({"README.md": "[a](../a.md)\n"}, "README.md:1: there is no ../a.md"),
    "another site": ({"README.md": "[a](https://a.invalid/b)\n"}, None),
    "code": ({"README.md": "`[a](b)`\n\n    [a](b)\n\n```\n[a](b)\n# a\n```\n"}, None),
    "over two lines": ({"README.md": "[a\nb](c)\n"}, "README.md:2: there is no c"),
    "a list item": ({"README.md": "- a\n    [a](b)\n"}, "README.md:2: there is no b"),
}


class DocsLinks(unittest.TestCase):
    def test_samples(self):
        check_samples(self, broken_links, SAMPLES)

    def test_repository(self):
        check_repository(self, broken_links, "docs", "*.md")


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
