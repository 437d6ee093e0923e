#!/usr/bin/env python3
"""`foe train` on several ranks as a user meets it: whatever dies and whenever, the run ends with the bits of one rank.

    tests/apps/train_ranks_test.py build/foe
    tests/apps/train_ranks_test.py build/foe -k Killed   # other arguments are unittest's

Standard library only.
"""

import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

FOE = None
PATIENCE_S = 240  # for what must come; only ends a test that fails
KILLS = 4
STEPS = 60
CONFIG = f"""
[model]
vocab_size = 61
hidden_size = 64
num_hidden_layers = 3
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 16
num_experts = 8
num_experts_per_tok = 2
moe_intermediate_size = 32
expert_groups = 2
residual = "federated"
[train]
sequence_length = 48
batch_sequences = 8
shards = 4
steps = {STEPS}
learning_rate = 1e-2
[run]
valid_every = 25
valid_tokens = 200
checkpoint_every = 5
save_dtype = "f32"
"""


def write_tokens(folder, count, seed):
    draw = random.Random(seed)
    tokens = [0]
    while len(tokens) < count:
        tokens.append((tokens[-1] * 7 + 3 + draw.randrange(2)) % 61)
    folder.write_bytes(struct.pack(f"<{count}H", *tokens))


def launcher(ranks):
    if ranks == 1:
        return []
    return ["mpirun", "-n", str(ranks), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca",
            "mpi_yield_when_idle", "1"]


def ranks_of(job):
    """Returns the process ids of the job's ranks that run, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            if f"FOE_TEST_JOB={job}".encode() not in environment or os.readlink(folder / "exe") != str(FOE):
                continue
            rank = [word for word in environment if word.startswith(b"OMPI_COMM_WORLD_RANK=")]
            found[int(rank[0].split(b"=")[1]) if rank else 0] = int(folder.name)
        except OSError:
            pass
    return found


class TrainTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="foe-train-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "tokens").mkdir()
        (self.folder / "tokenizer").mkdir()
        (self.folder / "tokenizer/tokenizer.json").write_text("{}")
        (self.folder / "run.toml").write_text(CONFIG)
        write_tokens(self.folder / "tokens/train.u16", 4000, 1)
        write_tokens(self.folder / "tokens/valid.u16", 301, 2)
        (self.folder / "tokens/meta.json").write_text(json.dumps({
            "vocab_size": 61, "end_of_text": 0, "train": {"file": "train.u16", "tokens": 4000, "bytes": 16000},
            "valid": {"file": "valid.u16", "tokens": 301, "bytes": 1204}}))

    def start(self, run, ranks, *flags):
        self.job = f"{os.getpid()}-{time.monotonic_ns()}"
        return subprocess.Popen(
            [*launcher(ranks), FOE, "train", self.folder / "run.toml", "--run", self.folder / run, "--threads",
             "1", *flags],
            env=dict(os.environ, FOE_TEST_JOB=self.job, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def train(self, run, ranks, *flags, status=0):
        process = self.start(run, ranks, *flags)
        text, _ = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode == 0, status == 0, text)
        return text

    def files(self, run):
        folder = self.folder / run
        steps = [re.sub(r',"tokens_per_s".*', "", line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return (steps, (folder / "checkpoint.safetensors").read_bytes(),
                (folder / "model/model.safetensors").read_bytes())

    def wait_for_step(self, run, step, process):
        """Returns whether the run has come so far before it ended."""
        metrics = self.folder / run / "metrics.jsonl"
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            self.assertLess(time.monotonic(), deadline)
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            if any(f'"step":{step},' in line for line in lines):
                return True
            time.sleep(0.005)
        return False

    def steps_done(self, run):
        checkpoint = self.folder / run / "checkpoint.safetensors"
        if not checkpoint.exists():
            return 0
        with open(checkpoint, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        return int(header["__metadata__"]["steps_done"])

    def test_killed_and_resumed_in_other_ways(self):
        self.train("alone", 1)
        seed = random.randrange(1 << 30)
        draw = random.Random(seed)
        kills, ways = 0, [(2, 2), (3, 1), (4, 2), (1, 1)]  # ranks, and how many share groups
        while self.steps_done("shared") < STEPS:
            ranks, group_ranks = ways[kills % len(ways)]
            process = self.start("shared", ranks, "--group-ranks", str(group_ranks))
            # Some steps further than the checkpoint, so that the run gets on whatever is killed.
            step = self.steps_done("shared") + draw.randrange(6, 10)
            if kills < KILLS and step < STEPS and self.wait_for_step("shared", step, process):
                victims = ranks_of(self.job)
                victim = draw.choice(sorted(victims))
                os.kill(victims[victim], signal.SIGKILL)
                text, _ = process.communicate(timeout=PATIENCE_S)
                self.assertNotEqual(process.returncode, 0, text)
                self.assertEqual(ranks_of(self.job), {})
                if ranks > 1:
                    self.assertIn("the same command resumes the run", text, f"rank {victim} of {ranks}, {group_ranks} share groups")
                kills += 1
            else:
                text, _ = process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, 0, text)
        self.assertGreaterEqual(kills, 3)
        self.assertEqual(self.files("shared"), self.files("alone"), f"seed {seed}")

    def test_stopped_by_a_signal_to_the_ranks(self):
        steps = 100000  # more than any machine takes before the signal comes
        (self.folder / "run.toml").write_text(CONFIG.replace(f"steps = {STEPS}", f"steps = {steps}"))
        process = self.start("shared", 2)
        self.assertTrue(self.wait_for_step("shared", 3, process))
        for rank in ranks_of(self.job).values():
            os.kill(rank, signal.SIGTERM)
        text, _ = process.communicate(timeout=PATIENCE_S)
        self.assertIn("stopped after step", text)
        self.assertGreaterEqual(self.steps_done("shared"), 3)
        self.assertLess(self.steps_done("shared"), steps)

    def test_refusals(self):
        text = self.train("run", 5, status=1)
        self.assertIn("train.shards: expected at least one shard for each of the 5 ranks, got 4", text)
        text = self.train("run", 3, "--group-ranks", "2", status=1)
        self.assertIn("--group-ranks: expected a divisor of the 3 ranks, got 2", text)
        text = self.train("run", 3, "--group-ranks", "3", status=1)
        self.assertIn("--group-ranks: expected 1 to 2, the groups of the model, got 3", text)
        (self.folder / "run.toml").write_text(CONFIG.replace(f"steps = {STEPS}", "steps = 2"))
        self.train("run", 2)
        (self.folder / "run.toml").write_text(CONFIG.replace(f"steps = {STEPS}", "steps = 2").replace("1e-2", "1e-3"))
        self.assertIn("train.learning_rate is 0.01 in this checkpoint and 0.001 in the configuration",
                      self.train("run", 2, status=1))

    def test_evaluates_to_the_same_loss(self):
        (self.folder / "run.toml").write_text(CONFIG.replace(f"steps = {STEPS}", "steps = 2"))
        self.train("run", 1)
        losses = {re.search(r"([0-9.]+) nats per token",
                            self.train("run", ranks, "--evaluate", "--group-ranks", str(group_ranks))).group(1)
                  for ranks, group_ranks in ((1, 1), (2, 1), (3, 1), (2, 2))}
        self.assertEqual(len(losses), 1, losses)


if __name__ == "__main__":
    FOE = Path(sys.argv.pop(1)).resolve()
    unittest.main()
