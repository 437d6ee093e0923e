#!/usr/bin/env python3
"""`foe convert --quantize int4 --calibrate` as a user meets it: the folder that it writes, and what it refuses.

    tests/apps/convert_calibrated_test.py build/foe

Standard library only.
"""

import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MODEL = Path(__file__).parents[2] / "models" / "moe-8m"
SENTENCES = (f"On the {day}th she wrote {day * 7 % 23} letters to her sister, and {word} was said of the house in any of them.\n"
             for day in range(4, 90) for word in ("nothing", "little", "something"))  # fmt: skip
PATIENCE_S = 120
FOE = None


def foe(*arguments):
    return subprocess.run([FOE, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE_S)


def metadata(folder):
    with open(folder / "model.safetensors", "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(size))["__metadata__"]


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


class ConvertCalibrated(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="foe-calibrate-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.text = cls.folder / "text"
        cls.text.write_text("".join(SENTENCES))

    def write(self, name, contents):
        path = self.folder / name
        path.write_bytes(contents)
        return path

    def convert(self, name, *arguments, model=MODEL, threads=2):
        out = self.folder / name
        return out, foe("convert", model, out, "--threads", threads, *arguments)

    def converted(self, name, *arguments, **options):
        out, done = self.convert(name, *arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def refusal(self, *arguments, status=1, **options):
        out, done = self.convert("refused", *arguments, **options)
        self.assertEqual(done.returncode, status, done)
        self.assertFalse(out.exists())
        return done.stderr

    def test_the_folder_is_an_ordinary_one(self):
        calibrate = ("--quantize", "int4,head=int8", "--calibrate", self.text, "--calibrate-tokens", 1024)
        out = self.converted("calibrated", *calibrate)
        plain = self.converted("plain", "--quantize", "int4,head=int8")
        self.assertRegex(metadata(out)["calibrated_with"],
                         r"^at most 1024 tokens of a text of \d+ bytes with the XXH64 digest [0-9a-f]{16}$")
        self.assertNotIn("calibrated_with", metadata(plain))
        self.assertNotEqual(digest(out), digest(plain))
        self.assertEqual((out / "config.json").read_text(), (plain / "config.json").read_text())
        done = foe("generate", out, "--prompt", "It was", "--max-tokens", 3, "--threads", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(digest(self.converted("again", *calibrate, threads=1)), digest(out))

    def test_texts_that_are_refused(self):
        calibrate = lambda text: self.refusal("--quantize", "int4", "--calibrate", text)
        missing = self.folder / "missing"
        self.assertIn(f"--calibrate: {missing}: {missing}: expected a file, got: No such file", calibrate(missing))
        self.assertIn("expected a file, got something else", calibrate(self.folder))
        self.assertIn("expected a text of at least 512 tokens, got 0", calibrate(self.write("empty", b"")))
        self.assertIn("expected a text of at least 512 tokens, got ", calibrate(self.write("short", b"It was so.")))
        self.assertIn("text must be valid UTF-8: byte 128 of 5120 is 0x80", calibrate(self.write("binary", bytes(range(256)) * 20)))

    def test_models_without_a_tokenizer_are_refused(self):
        model = self.folder / "mute"
        shutil.copytree(MODEL, model, ignore=shutil.ignore_patterns("tokenizer*"))
        self.assertIn(f"expected a model with a tokenizer, got none in {model}",
                      self.refusal("--quantize", "int4", "--calibrate", self.text, model=model))

    def test_what_has_nothing_to_calibrate_is_refused(self):
        self.assertIn("--calibrate: expected --quantize with int4, which is all that a text can improve, got int8,head=bf16",
                      self.refusal("--quantize", "int8,head=bf16", "--calibrate", self.text))
        self.assertIn("--calibrate", self.refusal("--groups", 4, "--calibrate", self.text, status=2))
        self.assertIn("--calibrate", self.refusal("--quantize", "int4", "--calibrate-tokens", 600, status=2))
        self.assertIn("expected --quantize or --groups, got neither", self.refusal("--calibrate", self.text))
        out = self.folder / "exists"
        out.mkdir()
        done = foe("convert", MODEL, out, "--quantize", "int4", "--calibrate", self.text)
        self.assertIn("exists: expected a folder that is not there yet", done.stderr)


if __name__ == "__main__":
    FOE = Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
