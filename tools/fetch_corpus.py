#!/usr/bin/env python3
"""Collects English text from Debian packages, cleans it and splits it.

    tools/fetch_corpus.py --out /tmp/foe-data/corpus

Packages are downloaded with `apt-get download` and unpacked with `dpkg-deb -x`: nothing gets installed, root is not
needed. Writes OUT/train/*.txt and OUT/valid/*.txt (one document each: paragraphs of one line with an empty line between
them) and OUT/manifest.json (package, version, licence, size and SHA-256). Equal packages give equal bytes.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from corpus.clean import Deduplicator
from corpus.sources import HELD_OUT, SOURCES, Source, clean_document


def fetch(package: str, cache: Path) -> tuple[Path, str]:
    """The folder of the unpacked package and its version; downloads what the cache does not have."""
    if not list(cache.glob(f"{package}_*.deb")):
        # As root, apt would warn that its sandbox user cannot write to the cache.
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"fetch_corpus: cannot download {package} (run `apt-get update`?):\n{done.stderr.strip()}")
    archive = sorted(cache.glob(f"{package}_*.deb"))[-1]
    version = subprocess.check_output(["dpkg-deb", "-f", archive, "Version"], text=True).strip()
    root = cache / "unpacked" / archive.stem
    if not root.exists():
        partial = root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
        partial.rename(root)
    return root, version


def check_licence(source: Source, package: str, root: Path) -> None:
    text = (root / "usr/share/doc" / package / "copyright").read_text("utf-8", "replace")
    if source.evidence not in text:
        sys.exit(f"fetch_corpus: {package}: expected its copyright file to say {source.evidence!r}, found other terms: "
                 "read the licence again, and mend tools/corpus/sources.py")


def collect(cache: Path) -> tuple[list[dict], list[tuple[Source, str, list[str]]]]:
    """What is known of each package, and all cleaned documents in the order of SOURCES."""
    packages, documents = [], []
    for source in SOURCES:
        for package in source.packages:
            root, version = fetch(package, cache)
            check_licence(source, package, root)
            packages.append({"source": source.name, "package": package, "version": version, "licence": source.licence})
            for name, paragraphs in source.documents(root):
                documents.append((source, name, clean_document(source, paragraphs)))
    return packages, documents


def write_split(out: Path, documents: list[tuple[Source, str, list[str]]]) -> list[dict]:
    """Writes the documents without duplicate paragraphs; returns the manifest's list of files."""
    # The held-out novel goes first, so that a training paragraph that quotes it is the one that is dropped.
    held_out = [d for d in documents if (d[0].name, d[1]) == HELD_OUT]
    if len(held_out) != 1:
        sys.exit(f"fetch_corpus: expected one document {'/'.join(HELD_OUT)}, found {len(held_out)}")
    deduplicator, files = Deduplicator(), []
    for source, name, paragraphs in held_out + [d for d in documents if d not in held_out]:
        text = "\n\n".join(p for p in paragraphs if deduplicator.is_new(p)) + "\n"
        if len(text) < 200:  # a page of links has left a sentence or two
            continue
        split = "valid" if (source.name, name) == HELD_OUT else "train"
        path = out / split / f"{source.name}-{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode("utf-8")
        path.write_bytes(data)
        files.append({"path": f"{split}/{path.name}", "source": source.name, "bytes": len(data),
                      "sha256": hashlib.sha256(data).hexdigest()})  # fmt: skip
    twice = sorted(path for path, count in Counter(f["path"] for f in files).items() if count > 1)
    if twice:
        sys.exit(f"fetch_corpus: expected one document of each name, found two of {', '.join(twice)}")
    return sorted(files, key=lambda f: f["path"])


def print_table(files: list[dict], packages: list[dict]) -> None:
    print(f"{'source':<38} {'documents':>9} {'bytes':>12}  {'share':>6}  licence")
    total = sum(f["bytes"] for f in files)
    for source in SOURCES:
        mine = [f for f in files if f["source"] == source.name]
        size = sum(f["bytes"] for f in mine)
        print(f"{source.title:<38} {len(mine):>9} {size:>12,}  {size / total:>6.1%}  {source.licence}")
    for split in ("train", "valid"):
        mine = [f for f in files if f["path"].startswith(split)]
        print(f"{split:<38} {len(mine):>9} {sum(f['bytes'] for f in mine):>12,}")
    print(f"from {len(packages)} packages; held out: {'/'.join(HELD_OUT)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("/tmp/foe-data/corpus"),
                        help="folder to write (default: %(default)s)")
    parser.add_argument("--cache", type=Path, help="folder for downloaded packages (default: OUT/../cache)")
    arguments = parser.parse_args()
    cache = arguments.cache or arguments.out.parent / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid"):
        for old in (arguments.out / split).glob("*.txt"):
            old.unlink()
    packages, documents = collect(cache)
    files = write_split(arguments.out, documents)
    manifest = {"held_out": "/".join(HELD_OUT), "packages": packages, "files": files}
    (arguments.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    print_table(files, packages)


if __name__ == "__main__":
    main()
