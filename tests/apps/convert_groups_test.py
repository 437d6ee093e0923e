#!/usr/bin/env python3
"""`foe convert --groups` as a user meets it: a record of routes, the conversion, and the commands that take the result.

    tests/apps/convert_groups_test.py build/foe

Standard library only.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MODELS = Path(__file__).parents[2] / "models"
MOE, FEDERATED = MODELS / "moe-8m", MODELS / "foe-8m"
TEXT = "It was a truth which nobody in the house had ever denied, and she said so to her sister.\n" * 4
PATIENCE_S = 120
FOE = None


def foe(*arguments):
    return subprocess.run([FOE, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE_S)


class ConvertGroups(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="foe-convert-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.text = cls.folder / "text"
        cls.text.write_text(TEXT)
        cls.routes = cls.folder / "routes.safetensors"
        done = foe("eval", MOE, "--text", cls.text, "--threads", 1, "--route-trace", cls.routes)
        assert done.returncode == 0, done.stderr

    def convert(self, name, *arguments, model=MOE):
        out = self.folder / name
        return out, foe("convert", model, out, "--threads", 1, *arguments)

    def refusal(self, *arguments, **options):
        out, done = self.convert("refused", *arguments, **options)
        self.assertEqual(done.returncode, 1, done)
        self.assertFalse(out.exists())
        return done.stderr

    def nats(self, model):
        done = foe("eval", model, "--text", self.text, "--threads", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        return float(re.search(r"nats per token +([\d.]+)", done.stdout)[1])

    def test_every_kind_is_an_ordinary_model(self):
        for residual in ("federated", "shared", "delayed"):
            with self.subTest(residual):
                out, done = self.convert(residual, "--groups", 4, "--residual", residual, "--routes", self.routes)
                self.assertEqual(done.returncode, 0, done.stderr)
                # A line for each layer, whose dealt experts lose less weight than those that stand as they are.
                layers = re.findall(r"^\d+ +\d+ +[\d.]+ % +([\d.]+) % +[\d.]+ % +([\d.]+) %$", done.stdout, re.M)
                self.assertEqual(len(layers), 6, done.stdout)
                for stands, dealt in layers:
                    self.assertLess(float(dealt), float(stands))
                config = json.loads((out / "config.json").read_text())
                self.assertEqual(config["expert_groups"], 4)
                self.assertEqual(config["residual"], "shared" if residual == "shared" else "federated")
                self.assertTrue((out / "tokenizer.json").exists())
                self.assertLess(self.nats(out), self.nats(MOE) + 3)  # it has not become noise: that is 8.3 nats
                done = foe("inspect", out)
                self.assertEqual(done.returncode, 0, done.stderr)
                done = foe("generate", out, "--prompt", "It was", "--max-tokens", 3, "--threads", 1)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_what_is_refused(self):
        self.assertIn("expected --quantize or --groups, got neither", self.refusal())
        self.assertIn("got both", self.refusal("--groups", 4, "--quantize", "int8"))
        self.assertIn("expert_groups: expected a divisor of num_key_value_heads = 4, got 3", self.refusal("--groups", 3))
        self.assertIn("expected a model with one group, got one with 4", self.refusal("--groups", 4, model=FEDERATED))
        self.assertIn("expected a record of routes", self.refusal("--groups", 4, "--routes", MOE / "model.safetensors"))
        out = self.folder / "exists"
        out.mkdir()
        done = foe("convert", MOE, out, "--groups", 4)
        self.assertIn("exists: expected a folder that is not there yet", done.stderr)
        self.assertEqual(done.returncode, 1)

    def test_a_record_of_another_model_is_refused(self):
        other = self.folder / "other"
        done = foe("eval", FEDERATED, "--text", self.text, "--threads", 1, "--route-trace", other)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(self.refusal("--groups", 4, "--routes", other),
                         "routes: expected a record of this model, whose digest is [0-9a-f]{16}, got one of [0-9a-f]{16}")


if __name__ == "__main__":
    FOE = Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
