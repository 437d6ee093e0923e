"""Documentation, manual pages and comments of source code: any package, read by the suffixes of its files."""

import gzip
import lzma
import re
import subprocess
import tarfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

from corpus.clean import Deduplicator, fingerprints, is_prose, normalise, quotes
from corpus.formats import html_paragraphs
from corpus.manuals import comment_paragraphs, dictionary_paragraphs, man_paragraphs, text_paragraphs

# What is read first keeps a paragraph that others have, too.
PACKAGES = """
    dict-gcide dict-devil crawl-common freeciv-data
    debian-reference-en debian-policy developers-reference debian-faq debian-history debian-kernel-handbook
    installation-guide-amd64 debmake-doc aptitude-doc-en fai-doc freedombox-doc-en shorewall-doc
    gnome-user-docs gnome-devel-docs gimp-help-en libreoffice-help-en-us lilypond-doc-html kicad-doc-en linuxcnc-doc-en
    csound-doc povray-doc renpy-doc png-definitive-guide ghostscript-doc imagemagick-6-doc gnuplot-doc snd-doc
    git-doc vim-runtime mutt bash-doc zsh-doc slurm-wlm-doc openafs-doc bacula-doc icinga2-doc apache2-doc bind9-doc
    postgresql-doc-15 sqlite3-doc db5.3-doc grass-doc octave-doc maxima-doc gap-doc scilab-doc
    perl-doc python3.11-doc python-django-doc python-djangorestframework-doc python-sqlalchemy-doc python-dask-doc
    python-scipy-doc python-pandas-doc python-sklearn-doc python-statsmodels-doc python-astropy-doc python-biopython-doc
    twisted-doc nova-doc neutron-doc cinder-doc keystone-doc swift-doc glance-doc ironic-doc ansible
    rust-doc racket-doc erlang-doc ghc-doc ada-reference-manual-2020 lazarus-doc-2.2 nodejs-doc tcl8.6-doc tk8.6-doc
    cppreference-doc-en-html libboost1.81-doc llvm-19-doc clang-14-doc cmake-doc dpdk-doc wx3.2-doc
    qtbase5-doc-html qtdeclarative5-doc-html libgtk-3-doc libgtk-4-doc libglib2.0-doc openjdk-17-doc
    manpages manpages-dev freebsd-manpages git-man linux-doc-6.1
    emacs-el golang-1.19-src linux-source-6.1
""".split()

_READERS = {
    **dict.fromkeys(("html", "htm", "xhtml", "page", "docbook", "xml"), html_paragraphs),
    **dict.fromkeys(("txt", "rst", "md", "pod", "adoc", "asciidoc", "info", "texi"), text_paragraphs),
    "dict.dz": dictionary_paragraphs,
}
_CODE = ("c", "h", "go", "el", "py")
_MAN_PAGE = re.compile(r"usr/share/man/man\d\w*/")
_COMPRESSED = re.compile(r"\.(?:gz|xz)$")
# Lists, legal texts, copies of pages that are there in another form, and translations.
_SKIPPED = re.compile(
    r"changelog|copyright|licen[sc]e|copying|/news|readme\.debian|genindex|index-all|/search|_sources/|py-modindex"
    r"|/(?:src-html|_static|_modules|tests?|testdata|vendor)/|\.(?:de|es|fr|ja|ko|tr|pt-br|da|zh-cn|ru)(?:\.html?|$)"
    r"|/(?:de|es|fr|ja|it|ru|pt_br|pt|zh_cn|zh_tw|ko|pl|sv|nl|cs|da)/",
    re.IGNORECASE,
)
_LARGEST = 16 << 20  # bytes; what is larger is data


def reader_of(path: str):
    """The function from text to paragraphs for a file of a package; None if it is no English text."""
    if _SKIPPED.search(path):
        return None
    if _MAN_PAGE.match(path):
        return man_paragraphs
    name = _COMPRESSED.sub("", path.rsplit("/", 1)[-1].lower())
    for suffix, reader in _READERS.items():
        if name.endswith("." + suffix):
            return reader
    suffix = name.rsplit(".", 1)[-1]
    return (lambda code: comment_paragraphs(code, suffix)) if suffix in _CODE else None


def files_of(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Path and contents of the readable files of a package, of a packed source tree in it, and of copyright files."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as unpacked:
        yield from _readable(unpacked.stdout)
    if unpacked.returncode != 0:
        raise OSError(f"{archive}: dpkg-deb cannot unpack it: remove the file, and run the script again")


def _readable(stream) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as tree:
        for member in tree:
            name = member.name.removeprefix("./")
            if not member.isfile():
                continue
            if name.startswith("usr/src/") and name.endswith(".tar.xz"):
                yield from _readable(lzma.open(tree.extractfile(member)))
            elif member.size <= _LARGEST and (reader_of(name) or name.endswith("/copyright")):
                yield name, tree.extractfile(member).read()


Paragraph = tuple[str, bytes, array]  # text, key for Deduplicator, digests of its runs of eight words
held_out_runs: frozenset[str] = frozenset()  # set before the processes start that call read_file


def read_file(job: tuple[str, str, bytes]) -> tuple[str, str, list[Paragraph], int]:
    """Package and name, the paragraphs of prose, and how many were dropped since they quote the held-out text."""
    package, name, data = job
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    except (OSError, EOFError, zlib.error):  # not gzip after all
        text = ""
    paragraphs = (normalise(paragraph) for paragraph in reader_of(name)(text) if len(paragraph) >= 40)
    prose = [paragraph for paragraph in paragraphs if is_prose(paragraph)]
    kept = [paragraph for paragraph in prose if not quotes(paragraph, held_out_runs)]
    return package, name, [(p, Deduplicator.key(p), fingerprints(p)) for p in kept], len(prose) - len(kept)
