#!/usr/bin/env python3
"""Cleaning, duplicates and the held-out text of tools/fetch_corpus.py, on small made packages. Standard library only.

    python3 tests/tools/corpus_test.py
"""

import contextlib
import gzip
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

TOOLS = Path(__file__).resolve().parent.parent.parent / "tools"
sys.path.append(str(TOOLS))
import corpus_page  # noqa: E402
import fetch_corpus  # noqa: E402
from corpus import clean, documentation, formats, manuals, packages  # noqa: E402

# Eighteen words, of which many are common, as is_prose wants.
SENTENCE = "It was the only place in the town that they could see from the window of her house."
HELD_OUT = "She had been forced into prudence in her youth, and she learned romance as she grew older, they all said."
QUOTING = 'The book says "forced into PRUDENCE in her youth -- and she learned romance as she grew older", which is so.'
TOO_SHORT_TO_QUOTE = "They say that she had been forced into prudence in her youth, and that this is about all."


class Readers(unittest.TestCase):
    def test_html(self):
        page = ("<html><head><title>No</title></head><body><!-- <p>no --><P class='a>b'>One &amp; two<br/>three"
                "<table><tr><td>no<table><tr><td>no</table>no</table>four<pre>no</pre></p></body>")
        found = [p.strip() for p in formats.html_paragraphs(page)]
        self.assertEqual([p for p in found if p and p != "b'>One & two"], ["three", "four"])

    def test_mallard(self):
        page = "<page><title>A</title><p>See <link xref='x'/>this.</p><screen>no</screen><item><p>And that.</p></item></page>"
        self.assertEqual([p for p in formats.html_paragraphs(page) if p], ["A", "See this.", "And that."])

    def test_man(self):
        page = ('.\\" no\n.TH LS 1\n.SH NAME\nls \\- list\n.SH DESCRIPTION\n.B ls\nshows\n.IR files (5),\nas in\n'
                '.BR "a b" .\n.TP\n.B \\-a\nShows \\fIall\\fP of\nthem.\n.nf\nno\n.fi\n.PP\nEnd \\(lqhere\\(rq.\n')
        self.assertEqual([p for p in manuals.man_paragraphs(page) if p],
                         ["ls - list", "ls shows files(5), as in a b.", "Shows all of them.", 'End "here".'])

    def test_mdoc(self):
        page = ".Dd today\n.Nm cat\n.Sh A\nThe\n.Nm\nutility reads\n.Ar file .\nSee\n.Xr ls 1 .\n.Pp\nEnd.\n"
        self.assertEqual([p for p in manuals.man_paragraphs(page) if p],
                         ["cat", "The cat utility reads file . See ls(1).", "End."])

    def test_text(self):
        text = "Title\n=====\n\nSee :ref:`this page <x>` and\n`that`, L<here|there>.\n- one\n  more\n- two\n\n.. note:: x\n"
        self.assertEqual([p for p in manuals.text_paragraphs(text) if p],
                         ["Title", "See this page and that, here.", "one more", "two"])

    def test_comments(self):
        c = f"/*\n * {SENTENCE}\n *\n * {HELD_OUT}\n */\nint x; /* short */\n  // {SENTENCE}\n  // More.\n"
        self.assertEqual([p.strip() for p in manuals.comment_paragraphs(c, "c") if p],
                         [SENTENCE, HELD_OUT, SENTENCE + " More."])
        python = f'def f():\n    """{SENTENCE}\n\n    More.\n    """\n'
        self.assertEqual([p.strip() for p in manuals.comment_paragraphs(python, "py") if p], [SENTENCE, "More."])

    def test_which_files_are_read(self):
        for path in ("usr/share/man/man1/ls.1.gz", "usr/share/doc/a/b.HTML", "usr/share/doc/a/b.txt.gz", "linux/a/b.c"):
            self.assertIsNotNone(documentation.reader_of(path), path)
        for path in ("usr/share/doc/a/changelog.html", "usr/share/man/de/man1/ls.1.gz", "usr/share/doc/a/fr/b.html",
                     "usr/share/doc/a/b.html.ja", "usr/share/doc/a/copyright", "usr/lib/a.so"):
            self.assertIsNone(documentation.reader_of(path), path)


class Cleaning(unittest.TestCase):
    def test_prose(self):
        self.assertTrue(clean.is_prose(SENTENCE))
        for text in ("The end.", "int main(void) { return the_value_of_it(of, the, and); }", SENTENCE[:-1],
                     "Es war der einzige Ort in der Stadt, den sie aus dem Fenster ihres Hauses sehen konnten.",
                     "Apple, pear, plum, cherry, orange, lemon, quince, peach, apricot, melon, fig."):
            self.assertFalse(clean.is_prose(text), text)

    def test_normalise(self):
        self.assertEqual(clean.normalise("\u201cCafe\u0301\u201d\u2014it\u2019s\u00a0 _so_ ."), "\"Caf\u00e9\"--it's so.")

    def test_repeated_paragraphs(self):
        deduplicator = clean.Deduplicator()
        self.assertTrue(deduplicator.is_new(SENTENCE))
        self.assertFalse(deduplicator.is_new(SENTENCE.upper().replace(" ", "  ")))
        self.assertTrue(deduplicator.is_new("Yes.") and deduplicator.is_new("Yes."))
        self.assertTrue(deduplicator.is_new_key(deduplicator.key("No.")))
        self.assertFalse(deduplicator.is_new_key(deduplicator.key("no!")))

    def test_near_duplicates(self):
        near = clean.NearDuplicates()
        is_new = lambda text: near.is_new(clean.fingerprints(text))  # noqa: E731
        self.assertTrue(is_new(SENTENCE))
        self.assertFalse(is_new(SENTENCE.replace("house", "castle")))
        self.assertTrue(is_new(SENTENCE.replace("town that", "village which")))  # three of eleven runs are the same

    def test_quotations_of_the_held_out_text(self):
        runs = frozenset(clean.windows(HELD_OUT, clean.HELD_OUT_WORDS))
        self.assertTrue(clean.quotes(HELD_OUT, runs))
        self.assertTrue(clean.quotes(QUOTING, runs))
        self.assertFalse(clean.quotes(TOO_SHORT_TO_QUOTE, runs))
        self.assertFalse(clean.quotes("Yes.", runs))


class Packages(unittest.TestCase):
    def test_licences(self):
        dep5 = ("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: debian/*\n"
                "License: GPL-3+\n\nFiles: *\nCopyright: A\nLicense: MIT\n Permission ...\n")
        self.assertEqual(packages.licences(dep5), "MIT, GPL-3+")
        self.assertEqual(packages.licences(dep5, most=1), "MIT and 1 more")
        self.assertEqual(packages.licences("See /usr/share/common-licenses/GPL-2."), "GPL-2")
        self.assertEqual(packages.licences(""), "see its copyright file")

    def test_what_apt_does_not_know(self):
        with tempfile.TemporaryDirectory() as folder, \
             mock.patch.object(packages.subprocess, "check_output", return_value="other\n"):
            failed = packages.download(["some"], Path(folder))
        self.assertEqual(list(failed), ["some"])
        self.assertIn("apt-get update", failed["some"])


class WholeRun(unittest.TestCase):
    """From unpacked packages to the page, with the packages made here instead of apt's."""

    FILES = {
        "a": {"usr/share/man/man7/a.7.gz": gzip.compress(f".SH A\n{SENTENCE}\n.PP\n{QUOTING}\n".encode(), mtime=0),
              "usr/share/doc/a/copyright": b"/usr/share/common-licenses/GPL-2\n"},
        "b": {"usr/share/doc/b/index.html": f"<p>{SENTENCE}</p><p>{SENTENCE.replace('house', 'hut')}</p>".encode(),
              "usr/share/doc/b/more.txt": f"{TOO_SHORT_TO_QUOTE}\n".encode()},
    }  # fmt: skip

    def run_once(self, folder, processes):
        fakes = {"download": lambda names, _: {"gone": "not in apt's lists"},
                 "archive_of": lambda package, _: Path(package), "field": lambda archive, name: f"{name} of {archive}"}
        (folder / "out" / "train").mkdir(parents=True)
        (folder / "out" / "valid").mkdir()
        with mock.patch.multiple(fetch_corpus, **fakes), mock.patch.object(fetch_corpus.Corpus, "SHORTEST", 20), \
             mock.patch.multiple(documentation, PACKAGES=["a", "gone", "b"],
                                 files_of=lambda archive: self.FILES[archive.name].items()), \
             contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            corpus, deduplicator = fetch_corpus.Corpus(folder / "out"), clean.Deduplicator()
            known, report = fetch_corpus.add_documentation(corpus, [HELD_OUT], [[HELD_OUT]], deduplicator, folder,
                                                           processes)
        self.assertIn("going on without gone: not in apt's lists", errors.getvalue())
        text = {file["path"]: (folder / "out" / file["path"]).read_text() for file in corpus.files()}
        return known, report, corpus.files(), text

    def test_whole_run(self):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            known, report, files, text = self.run_once(Path(one), 1)
            self.assertEqual(text, self.run_once(Path(two), 2)[3])
        self.assertEqual([p["package"] for p in known], ["a", "b"])
        self.assertEqual(known[0]["licence"], "GPL-2")
        self.assertEqual(sorted(text.values()), sorted([SENTENCE + "\n", TOO_SHORT_TO_QUOTE + "\n"]))
        self.assertEqual(report["dropped_paragraphs"],
                         {"quotes_of_the_held_out_text": 1, "repeated": 1, "near_duplicates": 1})
        meta = {"packages": {"a": 5}, **{s: {"file": s, "tokens": 5, "bytes": 9, "sha256": "f0"} for s in ("train", "valid")}}
        lines = corpus_page.tables(json.loads(json.dumps(report)) | {"packages": known, "files": files}, meta)
        self.assertIn(f"| `a` Version of a | Description of a | 1 | {len(SENTENCE) + 1} | 5 | GPL-2 |", lines)
        self.assertIn("Could not be had: gone.", lines)


if __name__ == "__main__":
    unittest.main()
