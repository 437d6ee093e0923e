#!/usr/bin/env python3
"""Collects English text from Debian packages, cleans it and splits it.

    tools/fetch_corpus.py --out /tmp/foe-data/corpus
    tools/fetch_corpus.py --large --out /tmp/foe-data/large-corpus

Packages are downloaded with `apt-get download` and unpacked with `dpkg-deb -x`: nothing gets installed, root is not
needed. What an interrupted run has downloaded is used by the next one. Writes OUT/train/*.txt and OUT/valid/*.txt (one
document each: paragraphs of one line with an empty line between them) and OUT/manifest.json (packages with version and
licence, files with size and SHA-256, and what was dropped). Equal packages give equal bytes, with any number of processes.

--large adds documentation, dictionaries, manual pages and comments of source code (tools/corpus/documentation.py). Of
these, paragraphs are dropped that repeat another one, that share most of their runs of eight words with earlier
text, or that have a run of 13 words of the held-out novel. A package that cannot be had is named and left out.
"""

import argparse
import hashlib
import json
import multiprocessing
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from corpus import documentation
from corpus.clean import HELD_OUT_WORDS, Deduplicator, NearDuplicates, windows
from corpus.packages import archive_of, download, field, licences, unpack
from corpus.sources import HELD_OUT, SOURCES, Source, clean_document, slug


def check_licence(source: Source, package: str, root: Path) -> None:
    if source.evidence not in (root / "usr/share/doc" / package / "copyright").read_text("utf-8", "replace"):
        sys.exit(f"fetch_corpus: {package}: expected its copyright file to say {source.evidence!r}, found other terms: "
                 "read the licence again, and mend tools/corpus/sources.py")


def collect(cache: Path) -> tuple[list[dict], list[tuple[Source, str, str, list[str]]]]:
    """What is known of each package of SOURCES, and all cleaned documents in their order."""
    packages, documents = [], []
    for package, reason in download([package for source in SOURCES for package in source.packages], cache).items():
        sys.exit(f"fetch_corpus: cannot download {package}: {reason}")
    for source in SOURCES:
        for package in source.packages:
            archive = archive_of(package, cache)
            root = unpack(archive, cache)
            check_licence(source, package, root)
            packages.append({"source": source.name, "title": source.title, "package": package,
                             "version": field(archive, "Version"), "licence": source.licence})  # fmt: skip
            for name, paragraphs in source.documents(root):
                documents.append((source, package, name, clean_document(source, paragraphs)))
    return packages, documents


class Corpus:
    """Writes documents, and keeps what the manifest says of them."""

    SHORTEST = 200  # characters; of a page of links a sentence or two are left

    def __init__(self, out: Path) -> None:
        self.out_ = out
        self.files_: dict[str, dict] = {}

    def add(self, split: str, name: str, package: str, paragraphs: list[str]) -> None:
        text = "\n\n".join(paragraphs) + "\n"
        if len(text) < self.SHORTEST:
            return
        path = f"{split}/{name}.txt"
        if path in self.files_:
            sys.exit(f"fetch_corpus: expected one document of each name, found two of {path}")
        data = text.encode("utf-8")
        (self.out_ / path).write_bytes(data)
        self.files_[path] = {"path": path, "package": package, "bytes": len(data),
                             "sha256": hashlib.sha256(data).hexdigest()}  # fmt: skip

    def files(self) -> list[dict]:
        return sorted(self.files_.values(), key=lambda file: file["path"])


def add_shipped(corpus: Corpus, documents: list[tuple[Source, str, str, list[str]]],
                deduplicator: Deduplicator) -> list[str]:
    """Writes the documents of SOURCES without duplicate paragraphs; returns the paragraphs of the held-out one."""
    # The held-out novel goes first, so that a training paragraph that quotes it is the one that is dropped.
    held_out = [d for d in documents if (d[0].name, d[2]) == HELD_OUT]
    if len(held_out) != 1:
        sys.exit(f"fetch_corpus: expected one document {'/'.join(HELD_OUT)}, found {len(held_out)}")
    for document in held_out + [d for d in documents if d not in held_out]:
        source, package, name, paragraphs = document
        new = [p for p in paragraphs if deduplicator.is_new(p)]
        corpus.add("valid" if document is held_out[0] else "train", f"{source.name}-{name}", package, new)
    return held_out[0][3]


def add_documentation(corpus: Corpus, held_out: list[str], shipped: list[list[str]], deduplicator: Deduplicator,
                      cache: Path, processes: int) -> tuple[list[dict], dict]:
    """Writes what documentation.PACKAGES have; returns what is known of each package, and what was dropped."""
    missing = download(documentation.PACKAGES, cache)
    for package, reason in missing.items():
        print(f"fetch_corpus: going on without {package}: {reason}", file=sys.stderr)
    packages = []

    def jobs() -> Iterator[tuple[str, str, bytes]]:
        for package in documentation.PACKAGES:
            if package in missing:
                continue
            print(f"reading {package}", flush=True)
            archive = archive_of(package, cache)
            known = {"source": package, "title": field(archive, "Description").splitlines()[0], "package": package,
                     "version": field(archive, "Version"), "licence": licences("")}  # fmt: skip
            packages.append(known)
            for name, data in documentation.files_of(archive):
                if name == f"usr/share/doc/{package}/copyright":
                    known["licence"] = licences(data.decode("utf-8", "replace"))
                elif documentation.reader_of(name):
                    yield package, name, data

    # All of the held-out text at once: a quotation may run over the ends of its paragraphs.
    documentation.held_out_runs = frozenset(windows(" ".join(held_out), HELD_OUT_WORDS))
    dropped = Counter(quotes_of_the_held_out_text=0, repeated=0, near_duplicates=0)
    with multiprocessing.Pool(processes) as pool:  # first, so that the processes have no copies of what comes next
        near = NearDuplicates()
        for paragraph in (paragraph for paragraphs in shipped for paragraph in paragraphs):
            near.is_new(documentation.fingerprints(paragraph))
        for package, name, paragraphs, quoting in pool.imap(documentation.read_file, jobs(), chunksize=8):
            dropped["quotes_of_the_held_out_text"] += quoting
            new = [p for p in paragraphs if deduplicator.is_new_key(p[1])]
            kept = [text for text, _, digests in new if near.is_new(digests)]
            dropped["repeated"] += len(paragraphs) - len(new)
            dropped["near_duplicates"] += len(new) - len(kept)
            # A digest of the path, since two paths may have one slug.
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            corpus.add("train", f"{package}-{slug(Path(name).name)[:60]}-{digest}", package, kept)
    return packages, {"missing": missing, "dropped_paragraphs": dict(dropped)}


def print_table(files: list[dict], packages: list[dict]) -> None:
    print(f"{'source':<38} {'documents':>9} {'bytes':>12}  {'share':>6}  licence")
    total = sum(f["bytes"] for f in files)
    for source in dict.fromkeys(p["source"] for p in packages):
        mine = [p for p in packages if p["source"] == source]
        names = {p["package"] for p in mine}
        sizes = [f["bytes"] for f in files if f["package"] in names]
        title, licence = mine[0]["title"], mine[0]["licence"]
        print(f"{title[:38]:<38} {len(sizes):>9} {sum(sizes):>12,}  {sum(sizes) / total:>6.1%}  {licence}")
    for split in ("train", "valid"):
        sizes = [f["bytes"] for f in files if f["path"].startswith(split)]
        print(f"{split:<38} {len(sizes):>9} {sum(sizes):>12,}")
    print(f"from {len(packages)} packages; held out: {'/'.join(HELD_OUT)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/foe-data/corpus"),
                        help="folder to write (default: %(default)s)")
    parser.add_argument("--cache", type=Path, help="folder for downloaded packages (default: OUT/../cache)")
    parser.add_argument("--large", action="store_true", help="add documentation, manual pages and comments")
    parser.add_argument("--processes", type=int, default=2, help="with --large (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error(f"--processes: expected at least 1, got {arguments.processes}")
    cache = arguments.cache or arguments.out.parent / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        shutil.rmtree(arguments.out / split, ignore_errors=True)
        (arguments.out / split).mkdir(parents=True)
    packages, documents = collect(cache)
    corpus, deduplicator = Corpus(arguments.out), Deduplicator()
    held_out = add_shipped(corpus, documents, deduplicator)
    manifest = {"held_out": "/".join(HELD_OUT)}
    if arguments.large:
        shipped = [paragraphs for _, _, _, paragraphs in documents]
        more, report = add_documentation(corpus, held_out, shipped, deduplicator, cache, arguments.processes)
        packages += more
        manifest |= report
        print(json.dumps(report))
    manifest |= {"packages": packages, "files": corpus.files()}
    (arguments.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    print_table(manifest["files"], packages)


if __name__ == "__main__":
    main()
