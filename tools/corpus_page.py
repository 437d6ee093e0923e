#!/usr/bin/env python3
"""Writes the tables of docs/corpus.md: what the large corpus is made of, and under which licences.

    tools/corpus_page.py /tmp/foe-data/large-corpus /tmp/foe-data/large-tokens

Takes what `tools/fetch_corpus.py --large` and tools/pack_tokens.py have written. Standard library only.
"""

import json
import sys
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "corpus.md"
BEGIN, END = "<!-- tables by tools/corpus_page.py -->", "<!-- end of the tables -->"


def tables(manifest: dict, meta: dict) -> list[str]:
    train, valid, dropped = meta["train"], meta["valid"], manifest["dropped_paragraphs"]
    lines = ["| split | tokens | bytes of text | SHA-256 of the tokens |", "|---|---|---|---|"]
    for split in (train, valid):
        lines.append(f"| `{split['file']}` | {split['tokens']:,} | {split['bytes']:,} | `{split['sha256']}` |")
    lines += ["", "| paragraphs of the additional packages that were dropped | |", "|---|---|"]
    lines += [f"| {reason.replace('_', ' ')} | {count:,} |" for reason, count in dropped.items()]
    if manifest["missing"]:
        lines += ["", f"Could not be had: {', '.join(sorted(manifest['missing']))}."]
    documents, sizes = Counter(), Counter()
    for file in manifest["files"]:
        documents[file["package"]] += 1
        sizes[file["package"]] += file["bytes"]
    lines += ["", "| package and version | what it is | documents | bytes | tokens | licences |",
              "|---|---|---|---|---|---|"]  # fmt: skip
    for package in manifest["packages"]:
        name, title = package["package"], package["title"].replace("|", "/")
        lines.append(f"| `{name}` {package['version']} | {title} | {documents[name]:,} | {sizes[name]:,} | "
                     f"{meta['packages'].get(name, 0):,} | {package['licence'].replace('|', '/')} |")
    return lines


def main() -> None:
    corpus, tokens = (Path(folder) for folder in sys.argv[1:])
    manifest, meta = (json.loads((corpus / "manifest.json").read_text("utf-8")),
                      json.loads((tokens / "meta.json").read_text("utf-8")))  # fmt: skip
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + "\n".join([BEGIN, "", *tables(manifest, meta), "", END]) + after, "utf-8")


if __name__ == "__main__":
    main()
