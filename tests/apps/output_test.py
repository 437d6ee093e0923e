#!/usr/bin/env python3
"""Where foe's output goes: full disks, closed handles, devices, links.

    tests/apps/output_test.py build/foe

What cannot be written is an error and the status 1; what is no file is not replaced by one. Standard library only.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MODEL = Path(__file__).parents[2] / "models" / "foe-8m"
PATIENCE_S = 120
FOE = None

CONFIG = """
[model]
vocab_size = 4096
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 16
num_experts = 4
num_experts_per_tok = 2
moe_intermediate_size = 16
[data]
tokens = "tokens"
tokenizer = "tokenizer"
[train]
sequence_length = 32
batch_sequences = 4
steps = 6
[run]
valid_every = 3
valid_tokens = 512
"""


def foe(*arguments, **options):
    command = [FOE, *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, text=True, timeout=PATIENCE_S,
                          **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


class Output(unittest.TestCase):

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def make_run(self):
        """Writes what `foe train` needs. Returns its arguments."""
        (self.folder / "tokens").mkdir()
        (self.folder / "tokenizer").mkdir()
        shutil.copy(MODEL / "tokenizer.json", self.folder / "tokenizer")
        numbers, meta = random.Random(1), {"vocab_size": 4096, "end_of_text": 0}
        for name, count in (("train", 5000), ("valid", 1000)):
            ids = [numbers.randrange(300) for _ in range(count)]
            (self.folder / "tokens" / f"{name}.bin").write_bytes(struct.pack(f"<{count}H", *ids))
            meta[name] = {"file": f"{name}.bin", "tokens": count, "bytes": 4 * count}
        (self.folder / "tokens" / "meta.json").write_text(json.dumps(meta))
        (self.folder / "train.toml").write_text(CONFIG)
        return ["train", self.folder / "train.toml", "--run", self.folder / "run", "--threads", 1]

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_a_full_disk_is_a_failure(self):
        prints = [["--help"], ["--version"], ["tokenize", MODEL, "--text", "It was"], ["inspect", MODEL],
                  ["inspect", MODEL, "--json"], ["generate", MODEL, "--prompt", "It was", "--max-tokens", 4],
                  ["generate", MODEL, "--prompt", "It was", "--max-tokens", 4, "--json"],
                  ["bench", "offline", MODEL, "--num-prompts", 2, "--random-input-len", 4, "--random-output-len", 4],
                  self.make_run()]
        for arguments in prints:
            with self.subTest(arguments=arguments), open("/dev/full", "w") as full:
                self.assertEqual(foe(*arguments).returncode, 0, "control")
                result = foe(*arguments, stdout=full)
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertIn("standard output: expected to write all of it, got: ", result.stderr)

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_a_full_disk_behind_a_flag_is_a_failure(self):
        (self.folder / "full").symlink_to("/dev/full")
        short = ["--num-prompts", 2, "--random-input-len", 4, "--random-output-len", 4]
        writes = [["bench", "offline", MODEL, *short, "--json"], ["logits", MODEL, "--tokens", "1,2,3", "--output"],
                  ["bench", "comm", "--kilobytes", 4, "--seconds", 0, "--json"]]
        for arguments in writes:
            with self.subTest(arguments=arguments):
                result = foe(*arguments, self.folder / "full")
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertRegex(result.stderr, "full: expected to write it, got: No space left on device")
                self.assertTrue((self.folder / "full").is_symlink())

    def test_what_cannot_be_written_is_found_before_the_work(self):
        short = ["--num-prompts", 2, "--random-input-len", 4, "--random-output-len", 4]
        (self.folder / "text").write_text("It was.")
        for arguments in (["bench", "offline", MODEL, *short], ["bench", "comm", "--kilobytes", 4, "--seconds", 0],
                          ["bench", "kernels"], ["bench", "engine", MODEL, "--prefill", 8, "--prompt-len", 8],
                          ["bench", "latency"], ["eval", MODEL, "--text", self.folder / "text"]):
            for place, reason in (("none/x.json", "No such file or directory"), ("", "Is a directory")):
                with self.subTest(arguments=arguments, place=place):
                    result = foe(*arguments, "--json", self.folder / place)
                    self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
                    self.assertRegex(result.stderr, f"--json: {self.folder}.*expected to .*, got: {reason}")

    def test_devices_and_links_stay(self):
        (self.folder / "null").symlink_to("/dev/null")
        (self.folder / "real").write_text("old")
        (self.folder / "link").symlink_to("real")
        for name in ("null", "link"):
            self.assertEqual(foe("logits", MODEL, "--tokens", "1,2,3", "--output", self.folder / name).returncode, 0)
            self.assertTrue((self.folder / name).is_symlink())
        self.assertTrue(Path("/dev/null").is_char_device())
        self.assertGreater((self.folder / "real").stat().st_size, 3 * 4096 * 4)
        self.assertEqual(foe("logits", MODEL, "--tokens", "1,2,3", "--output", "/dev/stdout", stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, errors="replace").returncode, 0)

    def test_closed_handles_are_not_taken_for_files(self):
        """A file that is opened gets the lowest free handle: once, 1 was metrics.jsonl."""
        train = [FOE, *map(str, self.make_run())]
        result = subprocess.run(["bash", "-c", '"$@" <&- >&- 2>&-', "bash", *train], timeout=PATIENCE_S)
        self.assertEqual(result.returncode, 0)
        lines = [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]
        self.assertEqual(lines[-1]["step"], 6)
        self.assertTrue(lines[-1]["complete"])
        output = self.folder / "logits"
        for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            logits = [FOE, "logits", str(MODEL), "--tokens", "1,2,3", "--output", str(output)]
            self.assertEqual(subprocess.run(["bash", "-c", f'"$@" {closed}', "bash", *logits]).returncode, 0)
            contents = output.read_bytes()
            self.assertEqual(len(contents), 8 + int.from_bytes(contents[:8], "little") + 3 * 4096 * 4)


class Flags(unittest.TestCase):

    def refusal(self, *arguments):
        done = foe(*arguments)
        self.assertEqual(done.returncode, 2, done)
        self.assertEqual(done.stdout, "")
        return done.stderr

    def test_an_empty_value_does_not_count_as_none(self):
        generate = ("generate", MODEL, "--prompt", "x")
        for command, flag in ((generate, "--route-trace"), (generate, "--route"), (("logits", MODEL), "--output"),
                              (("serve", MODEL), "--chat-template"), (("serve", MODEL), "--hosts"),
                              (("serve", MODEL), "--cors-origin"), (("train", "x.toml"), "--run"),
                              (("bench", "kernels"), "--json")):
            with self.subTest(flag=flag):
                self.assertIn(f"{flag}: expected a value, got an empty one", self.refusal(*command, flag, ""))
        self.assertIn("MODEL: expected a value", self.refusal("inspect", ""))
        self.assertEqual(foe("tokenize", MODEL, "--text", "").returncode, 0)
        self.assertIn("--prompt: expected a text of at least one token", foe("generate", MODEL, "--prompt", "").stderr)
        self.assertIn("FOE_API_KEY: expected a key", foe("serve", MODEL, "--api-key", "").stderr)

    def test_numbers_beyond_64_bits_are_refused(self):
        generate = ("generate", MODEL, "--prompt", "x", "--max-tokens", 1)
        for number in (2**64, 10**30, -(2**70)):
            self.assertIn(f"--seed: expected an integer of 64 bits, got {number}",
                          self.refusal(*generate, "--seed", number))
        self.assertIn("--route-sequence: expected an integer of 64 bits, got 9223372036854775808",
                      self.refusal(*generate, "--route", "x", "--route-sequence", 2**63))
        self.assertEqual(foe(*generate, "--seed", 2**64 - 1).returncode, 0)



if __name__ == "__main__":
    FOE = os.path.abspath(sys.argv.pop(1))
    unittest.main()
