#!/usr/bin/env python3
"""`foe eval` as a user meets it, against two others: oracle/eval_oracle.py, an independent implementation in float64, and
what lm-evaluation-harness chose over the API (golden/eval/expected.json, by tools/make_eval_golden.py).

    tests/python.sh tests/apps/eval_test.py build/foe
    tests/python.sh tests/apps/eval_test.py build/foe -k ranks   # other arguments are unittest's
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.append(str(TESTS / "oracle"))
import eval_oracle  # noqa: E402

FOE = None
PATIENCE_S = 300
MOE, FEDERATED = TESTS.parent / "models/moe-8m", TESTS.parent / "models/foe-8m"
ITEMS = TESTS / "golden/eval"
FILES = {"arc_easy": "arc_easy.jsonl", "boolq": "boolq.jsonl", "copa": "copa.jsonl", "hellaswag": "hellaswag.jsonl",
         "piqa": "piqa.jsonl", "sciq": "sciq.json"}
EXACT = ["--kv-dtype", "f32"]
CONTEXT = 512
# Two log-likelihoods of float32 arithmetic and of float64: what is closer than this may be chosen either way.
CLOSE = 1e-3
# Keys and values are bf16 in the server: sums over hundreds of roundings of 2^-9, but the same in both programs.
SAME_PROGRAM = 1e-3


def tasks(*names):
    return [word for name in names or FILES for word in ("--task", f"{name}={ITEMS / FILES[name]}")]


class Eval(unittest.TestCase):

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="foe-eval-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_foe(self, model, *arguments, ranks=1):
        launcher = ["mpirun", "-n", ranks, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca",
                    "mpi_yield_when_idle", "1"] if ranks > 1 else []
        words = [*launcher, FOE, "eval", model, "--threads", 1, *arguments]
        return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE_S)

    def evaluate(self, model, *arguments, ranks=1):
        out = self.folder / "out.json"
        done = self.run_foe(model, *arguments, "--json", out, ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(out.read_text())

    def refusal(self, *arguments, status=1):
        done = self.run_foe(MOE, *arguments)
        self.assertEqual(done.returncode, status, done)
        return done.stderr

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def check_choices(self, got, expected, tolerance):
        self.assertEqual(len(got["items"]), len(expected))
        for mine, theirs in zip(got["items"], expected):
            self.assertEqual(mine["answer"], theirs["answer"])
            for a, b in zip(mine["loglikelihoods"], theirs["loglikelihoods"], strict=True):
                self.assertAlmostEqual(a, b, delta=tolerance)
            for metric in ("acc", "acc_norm", "acc_bytes"):
                self.assertEqual(mine[metric], theirs[metric], (metric, mine, theirs))

    def test_choices_are_those_of_the_oracle(self):
        model = eval_oracle.Model(MOE)
        first = 3  # questions of each task: the oracle takes a second for each
        found = self.evaluate(MOE, *EXACT, *tasks(), "--limit", first)["tasks"]
        labels = (ITEMS / "piqa-labels.lst").read_text().split()
        for task, file in FILES.items():
            with self.subTest(task=task):
                items = eval_oracle.items_of(ITEMS / file)
                if task == "piqa":
                    items = [item | {"label": int(label)} for item, label in zip(items, labels, strict=True)]
                answers = [model.answer(task, item) for item in items[:first]]
                self.check_choices(found[task], answers, CLOSE)
                for metric in ("acc", "acc_norm", "acc_bytes"):
                    if metric not in found[task]:
                        self.assertIn(task, ("boolq", "copa"))
                        continue
                    right = [a[metric] == a["answer"] for a in answers]
                    self.assertAlmostEqual(found[task][metric]["mean"], sum(right) / len(right), places=12)
                    self.assertAlmostEqual(found[task][metric]["stderr"], eval_oracle.standard_error(right), places=12)

    def test_choices_are_those_of_the_harness(self):
        expected = json.loads((ITEMS / "expected.json").read_text())
        found = self.evaluate(MOE, *tasks(), "--text", ITEMS / "text.txt", "--window", expected["text"]["window"],
                              "--stride", expected["text"]["stride"])
        self.assertGreater(found["tasks"]["boolq"]["truncated"], 0)
        for task in FILES:
            with self.subTest(task=task):
                self.check_choices(found["tasks"][task], expected["tasks"][task]["items"], SAME_PROGRAM)
                for metric, value in expected["tasks"][task]["metrics"].items():
                    name, kind = (metric.removesuffix("_stderr"), "stderr" if metric.endswith("_stderr") else "mean")
                    if name in found["tasks"][task] and value != "N/A":
                        self.assertAlmostEqual(found["tasks"][task][name][kind], value, places=9)
        self.assertAlmostEqual(-found["text"]["nats"], expected["text"]["loglikelihood"], delta=SAME_PROGRAM)

    def test_losses_are_those_of_the_oracle(self):
        text = (ITEMS / "text.txt").read_text()[:2500]
        path = self.file("text.txt", text)
        for folder in (MOE, FEDERATED):
            model = eval_oracle.Model(folder)
            tokens = model.encode(text)
            for window, stride in ((CONTEXT - 1, 255), (64, 32), (50, 1 + len(tokens) // 20)):
                with self.subTest(model=folder.name, window=window, stride=stride):
                    found = self.evaluate(folder, *EXACT, "--text", path, "--window", window, "--stride", stride)["text"]
                    nats = model.nats(0, tokens, window, stride)
                    self.assertEqual((found["tokens"], found["bytes"]), (len(tokens), len(text.encode())))
                    self.assertAlmostEqual(found["nats_per_token"], nats / len(tokens), delta=1e-6)
                    self.assertAlmostEqual(found["bits_per_byte"], found["nats"] / 0.6931471805599453 / found["bytes"],
                                           places=12)
        # As ids, with the default window.
        ids = self.file("ids", ",".join(map(str, tokens)))
        self.assertEqual(self.evaluate(FEDERATED, "--tokens", f"@{ids}")["text"],
                         self.evaluate(FEDERATED, "--text", path)["text"])

    def test_ranks_plans_and_batches_change_no_bits(self):
        work = [*tasks("copa", "sciq"), "--text", ITEMS / "text.txt", "--window", 200]
        for folder, ways in ((MOE, [(2, ["--plan", "tp"]), (3, ["--plan", "ep"]), (2, ["--plan", "pp"]), (1, ["--chunk", 7]),
                                    (1, ["--max-sequences", 1])]),
                             (FEDERATED, [(2, []), (4, []), (1, ["--kv-tokens", 512])])):
            alone = self.evaluate(folder, *work)
            for ranks, way in ways:
                with self.subTest(model=folder.name, ranks=ranks, way=way):
                    self.assertEqual(self.evaluate(folder, *work, *way, ranks=ranks), alone)

    def test_route_trace_has_every_sequence(self):
        trace = self.folder / "routes.safetensors"
        alone = self.evaluate(MOE, *tasks("copa"))
        self.assertEqual(self.evaluate(MOE, *tasks("copa"), "--route-trace", trace), alone)
        from safetensors.numpy import load_file
        self.assertEqual(sorted(set(load_file(trace)["sequences"])), list(range(2 * 8)))

    def test_limit_takes_the_first_questions(self):
        whole, part = self.evaluate(MOE, *tasks("piqa")), self.evaluate(MOE, *tasks("piqa"), "--limit", 3)
        self.assertEqual(part["tasks"]["piqa"]["items"], whole["tasks"]["piqa"]["items"][:3])

    def test_refuses_bad_input(self):
        good = (ITEMS / "copa.jsonl").read_text()
        cut = self.file("cut.jsonl", good[: len(good) - 40])
        self.assertRegex(self.refusal("--task", f"copa={cut}"), r"cut\.jsonl line 8: ")
        wrong = self.file("wrong.jsonl", good.replace('"label": 1', '"label": 7', 1))
        self.assertIn("line 2.label: expected 0 to 1, got 7", self.refusal("--task", f"copa={wrong}"))
        self.assertIn("expected at least one item, got none", self.refusal("--task", f"copa={self.file('e', '')}"))
        self.assertIn("got copa twice", self.refusal(*tasks("copa", "copa")))
        self.assertIn("expected a task of arc_easy, boolq", self.refusal("--task", "arc=x", status=2))
        self.assertIn("expected TASK=FILE, got 'copa'", self.refusal("--task", "copa", status=2))
        self.assertIn("no such file", self.refusal("--task", f"copa={self.folder}/none").lower())
        self.assertIn("expected something to evaluate", self.refusal())
        self.assertIn("--text: expected a text of at least one token", self.refusal("--text", self.file("empty", "")))
        text = ["--text", ITEMS / "text.txt"]
        self.assertIn("--window: expected at most 511", self.refusal(*text, "--window", 512))
        self.assertIn("--stride: expected less than the window of 10 tokens, got 10",
                      self.refusal(*text, "--window", 10, "--stride", 10))
        self.assertIn("--prefix-token: expected an id in [0, 4096), got 4096",
                      self.refusal(*text, "--prefix-token", 4096))
        self.assertIn("--max-length: expected at most the model's context of 512",
                      self.refusal(*tasks("copa"), "--max-length", 513))

    def test_a_signal_ends_it(self):
        long = self.file("long.txt", (ITEMS / "text.txt").read_text() * 200)
        out = self.folder / "none.json"
        words = [FOE, "eval", MOE, "--threads", 1, "--text", long, "--json", out]
        process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE_S:  # until it is at work
            maps = Path(f"/proc/{process.pid}/status").read_text()
            if "SigCgt" in maps and int(maps.split("SigCgt:")[1].split()[0], 16) & (1 << (signal.SIGINT - 1)):
                break
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 1, errors)
        self.assertIn("stopped by a signal", errors)
        self.assertFalse(out.exists())


if __name__ == "__main__":
    FOE = Path(sys.argv.pop(1)).resolve()
    unittest.main(verbosity=2)
