#!/usr/bin/env python3
"""The study's queue with a program in the place of foe, and the rules of its analysis. Standard library only.

    python3 tests/tools/study_test.py
"""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path

PATIENCE_S = 300
TOOLS = Path(__file__).resolve().parent.parent.parent / "tools"
sys.path.append(str(TOOLS))
import study  # noqa: E402
import study_analysis as analysis  # noqa: E402

# Trains a step in 20 ms, checkpoints each, stops on SIGTERM, and refuses one arm.
FAKE_FOE = """\
    #!/usr/bin/env python3
    import json, signal, sys, time, tomllib
    from pathlib import Path
    if sys.argv[1] == "--version":
        print("foe fake"); sys.exit()
    config, run = tomllib.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[6])
    if config["model"]["residual"] == "unknown":
        sys.exit("foe: residual: expected shared or federated, got unknown")
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    metrics = run / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    with metrics.open("a") as file:
        for step in range(done + 1, config["train"]["steps"] + 1):
            print(json.dumps({"step": step, "tokens": step, "loss": 1 / step, "balance_loss": 1, "z_loss": 2,
                              "grad_norm": step, "tokens_per_s": 5, "peak_share": 0.5}), file=file, flush=True)
            time.sleep(0.02)
            if stop:
                sys.exit()
        print(json.dumps({"step": step, "tokens": step, "valid_loss": 4 + config["train"]["seed"] / 10,
                          "valid_bits_per_byte": 1.5, "complete": True}), file=file)
"""
PLAN = """\
    [data]
    tokens = "tokens"
    tokenizer = "tokenizer"
    [train]
    shards = 2
    [run]
    log_every = 1
    [[size]]
    name = "tiny"
    seeds = 2
    arms = ["moe", "refused"]
    [size.model]
    rope_theta = 1e4
    tie = true
    [size.train]
    steps = 40
    [[arm]]
    name = "moe"
    model = { residual = "shared" }
    [[arm]]
    name = "refused"
    model = { residual = "unknown" }
"""


class Queue(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "tools").mkdir()
        (self.folder / "study").mkdir()
        (self.folder / "tokens").mkdir()
        (self.folder / "tools/study.py").write_text((TOOLS / "study.py").read_text())
        (self.folder / "study/plan.toml").write_text(textwrap.dedent(PLAN))
        (self.folder / "tokens/meta.json").write_text('{"train": {"sha256": "a"}, "valid": {"sha256": "b"}}')
        foe = self.folder / "foe"
        foe.write_text(textwrap.dedent(FAKE_FOE))
        foe.chmod(0o755)
        self.command = [sys.executable, self.folder / "tools/study.py", "run", "--foe", foe, "--data", self.folder, "--runs",
                        self.folder / "runs", "--nice", 0]

    def start(self, *arguments):
        return subprocess.Popen([*map(str, self.command), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)

    def result(self, name):
        return json.loads((self.folder / f"study/results/{name}.json").read_text())

    def test_stops_goes_on_and_ends(self):
        queue = self.start()
        metrics = self.folder / "runs/tiny-moe-1/metrics.jsonl"
        while not metrics.exists() or not metrics.read_text():
            self.assertIsNone(queue.poll())
            time.sleep(0.02)
        queue.send_signal(signal.SIGTERM)
        out, _ = queue.communicate(timeout=PATIENCE_S)
        self.assertIn("stopped; the same command goes on", out)
        self.assertFalse((self.folder / "study/results").exists())
        queue = self.start()
        out, _ = queue.communicate(timeout=PATIENCE_S)
        self.assertEqual(queue.returncode, 1, out)  # one arm was refused
        self.assertIn("tiny-moe-1: 1 of 4 that are left, goes on behind step", out)
        self.assertIn("tiny-refused-1: expected foe train to end, got status 1: foe: residual: expected shared", out)
        self.assertEqual(self.result("tiny-moe-2")["held_out_nats"], 4.2)
        first = self.result("tiny-moe-1")
        self.assertEqual(first["grad_norm"], {"median": 20.5, "p99": 39, "largest": 40})
        self.assertEqual(first["config"]["model"], {"rope_theta": 1e4, "tie": True, "residual": "shared"})
        self.assertEqual(first["tokens_sha256"], {"train": "a", "valid": "b"})
        steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
        self.assertEqual(steps, [*range(1, 41), 40])
        out, _ = self.start("--arm", "moe").communicate(timeout=PATIENCE_S)
        self.assertIn("nothing is left to run", out)
        plan = self.folder / "study/plan.toml"
        plan.write_text(plan.read_text().replace("steps = 40", "steps = 41"))
        out, _ = self.start().communicate(timeout=PATIENCE_S)
        self.assertIn("tiny-moe-1.json: expected a run of this plan's configuration", out)

    def test_the_plan_is_whole(self):
        runs = study.load_runs(study.STUDY / "plan.toml")
        self.assertEqual(len({run.name for run in runs}), len(runs))
        self.assertEqual([r.name for r in runs[:2]], ["1m-moe-1", "1m-moge-1"])


class Analysis(unittest.TestCase):

    def test_intervals_are_those_of_the_t_distribution(self):
        # Student's own example: the differences of hours of sleep of ten patients, mean 1.58, 95 % interval 0.70 to 2.46.
        sleep = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
        low, high = analysis.interval(sleep, analysis.T_975)
        self.assertAlmostEqual(statistics.fmean(sleep), 1.58)
        self.assertAlmostEqual(low, 0.7001, places=3)
        self.assertAlmostEqual(high, 2.4599, places=3)
        self.assertEqual(analysis.interval([1.0], analysis.T_975), (float("-inf"), float("inf")))

    def test_verdicts(self):
        self.assertEqual(analysis.verdict([0.001, -0.002, 0.003]), "equal within the margin")
        self.assertEqual(analysis.verdict([0.010, 0.011, 0.0105]), "equal within the margin")
        self.assertEqual(analysis.verdict([0.05, 0.06, 0.055]), "worse")
        self.assertEqual(analysis.verdict([-0.05, -0.06, -0.055]), "better")
        self.assertEqual(analysis.verdict([0.05, -0.06, 0.02]), "undecided")
        self.assertEqual(analysis.verdict([0.0]), "undecided")
        self.assertEqual(analysis.verdict([0.0, 0.0199]), "undecided")

    def test_tables_of_t(self):
        """The quantiles against the density, integrated."""
        import math
        for degrees in (1, 2, 7, 15):
            scale = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
            for share, table in ((0.95, analysis.T_95), (0.975, analysis.T_975)):
                steps, end = 4000, table[degrees - 1]
                area = sum(scale * (1 + ((i + 0.5) * end / steps) ** 2 / degrees) ** (-(degrees + 1) / 2)
                           for i in range(steps)) * end / steps
                self.assertAlmostEqual(0.5 + area, share, places=5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
