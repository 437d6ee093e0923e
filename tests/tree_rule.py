"""What tests of rules about the files of this repository share. Standard library only."""

import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def check_samples(test, find, samples):
    """Each sample is the files of a folder, and the start of the one line that find(folder) returns for it, or None."""
    for name, (files, expected) in samples.items():
        with test.subTest(name), tempfile.TemporaryDirectory() as folder:
            for path, text in files.items():
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            found = find(Path(folder))
            test.assertEqual([line[:len(expected or "")] for line in found], [expected] if expected else [])


def check_repository(test, find, folder, pattern):
    """The rule must hold here, where there are files that it is about."""
    test.assertGreater(len(list((ROOT / folder).rglob(pattern))), 0, f"no {pattern} found in {folder}/")
    found = find(ROOT)
    test.assertFalse(found, "\n" + "\n".join(found))
