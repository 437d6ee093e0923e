#!/usr/bin/env python3
"""Runs `foe bench` and the accounts of `foe generate` on one rank and on two, and checks what does not depend on the clock.

    tests/dist/bench_test.py build/foe
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MODELS = Path(__file__).parents[2] / "models"
RUNGS = ["A ep", "A ep per expert", "A ep split", "B tp", "C tp grouped", "D foe"]
HIDDEN, TOKENS, SELECTED = 256, 8, 4  # of models/moe-8m, and in the passes below
KEYS = 2 * 4 * (32 + 32)  # bytes of the keys and values of a token in one layer, in bf16
FOE = None


def run(*flags, ranks=1):
    launcher = []
    if ranks > 1:
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        launcher = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none"]
        launcher += ["--mca", "mpi_yield_when_idle", "1", "--mca", "btl", "self,vader"]
    return subprocess.run([*launcher, FOE, *flags], capture_output=True, text=True, timeout=120)


class BenchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.json = Path(folder.name) / "points.json"

    def points(self, *flags, ranks):
        done = run("bench", *flags, "--json", self.json, ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(self.json.read_text("utf-8"))["points"]

    def latency(self, ranks):
        flags = ["--shape", MODELS / "moe-8m", "--tokens", TOKENS, "--repetitions", "2", "--threads", "1"]
        return self.points("latency", *map(str, flags), ranks=ranks)

    def test_machine_reports_what_it_measured(self):
        done = run("bench", "machine", "--shape", MODELS / "moe-8m", "--seconds", "0.001", "--formats", "int8", "bf16")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("measuring steps in bf16", done.stderr)  # its progress
        tables = [[line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")][2:]
                  for part in done.stdout.split("## ")]  # fmt: skip
        facts, limits, products, steps = tables
        processors = len(os.sched_getaffinity(0))
        self.assertIn(["processors that foe may use", str(processors)], facts)
        self.assertEqual([int(row[0]) for row in limits][-1], processors)
        self.assertEqual([row[1] for row in products], 3 * ["int8"] + 3 * ["bf16"])
        self.assertEqual({row[0] for row in steps}, {"int8", "bf16"})
        for row in steps:
            self.assertEqual(len(row), 6)
            self.assertTrue(all(float(speed) > 0 for speed in row[3:]), row)

    def test_latency_on_one_rank_sends_nothing(self):
        points = self.latency(1)
        expected = [(load, rung) for load in ("one-prompt", "many-prompts", "decode") for rung in RUNGS]
        self.assertEqual([(p["load"], p["rung"]) for p in points], expected)
        for p in points:
            self.assertEqual((p["tokens"], p["layer"]["bytes"]), (TOKENS, 0))
            self.assertLessEqual(p["fastest_s"], p["seconds"])
            self.assertLessEqual(p["seconds"], p["slowest_s"])
            self.assertGreater(p["layer"]["attention_s"], 0)
            self.assertEqual(p["layer"]["row_balance"], 1)
            self.assertEqual(p["experts"]["local_activation_rate"], 1)
            layers = p["experts"]["rows_by_layer_and_expert"]
            self.assertEqual([sum(rows) for rows in layers[:-1]], 5 * [SELECTED * TOKENS])

    def test_latency_on_two_ranks_sends_what_the_plans_say(self):
        row = 4 * HIDDEN
        for p in self.latency(2):
            sent = p["layer"]["bytes"]
            ep = TOKENS * (row + 8 * SELECTED + row)  # one row, with experts and weights, and one partial per token
            most = {"D foe": 2 * TOKENS * row,  # one sum: each rank's partial to the other
                    "B tp": 4 * TOKENS * row,
                    "C tp grouped": 4 * TOKENS * row,
                    "A ep": ep,
                    "A ep split": ep + TOKENS * KEYS,
                    "A ep per expert": TOKENS * SELECTED * (row + 8 + row)}[p["rung"]]
            self.assertLessEqual(sent, most, p)
            if not p["rung"].startswith("A"):
                self.assertEqual(sent, most, p)
            # Of six layers none sends more; foe has one sum more at the end.
            self.assertEqual(len(p["ranks"]), 2)
            total = sum(c["bytes"] for rank in p["ranks"] for name, c in rank.items() if name != "gather")
            self.assertTrue(sent <= total <= 7 * most, p)

    def test_ranks_that_split_a_prompt_send_what_one_would_and_the_keys(self):
        flags = ["--shape", MODELS / "moe-8m", "--tokens", "256", "--loads", "one-prompt", "--repetitions", "1", "--threads", "1",
                 "--rungs", "A ep,A ep split"]
        for ranks in 2, 3:
            whole, split = self.points("latency", *map(str, flags), ranks=ranks)
            calls, sent = ([sum(rank["all_to_all"][name] for rank in p["ranks"]) for p in (whole, split)]
                           for name in ("calls", "bytes"))
            self.assertEqual(calls, [6 * 2 * ranks, 6 * 3 * ranks])
            # The weights of a benchmark are random on each rank: about as many rows go to experts, whichever rank a token is on.
            self.assertAlmostEqual(sent[1] - 6 * 256 * KEYS * (ranks - 1), sent[0], delta=0.1 * sent[0])

    def test_stages_pass_each_row_once(self):
        flags = ["--shape", MODELS / "moe-8m", "--tokens", "128", "--loads", "many-prompts", "--repetitions", "1", "--threads", "1",
                 "--rungs", "E pp,F pp x ep"]
        first, second = self.points("latency", *map(str, flags), ranks=2)
        self.assertEqual([p["rung"] for p in (first, second)], ["E pp", "F pp x ep"])
        for p in first, second:  # on two ranks they are the same: three layers each, and 128 rows in two micro-batches
            sent, received = (rank["send"] for rank in p["ranks"])
            self.assertEqual((sent["messages"], sent["bytes"]), (2, 128 * 4 * HIDDEN))
            self.assertEqual(received["messages"], 1)  # the logits
            self.assertEqual(p["ranks"][0]["sum"]["bytes"] + p["ranks"][0]["all_to_all"]["bytes"], 0)
            layers = p["experts"]["rows_by_layer_and_expert"]
            self.assertEqual([sum(rows) for rows in layers[:-1]], 5 * [SELECTED * 128])
        done = run("bench", "latency", *map(str, flags[:2]), "--layers", "2", "--rungs", "E pp", ranks=3)
        self.assertIn("stages: expected at most 2, one for each layer, got 3", done.stderr)

    def test_refuses_a_skew_that_no_routing_has(self):
        done = run("bench", "latency", "--skew", "2.1", ranks=2)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--skew: expected at most 2 with 2 ranks, got 2.1", done.stderr)

    def test_skewed_routing_fills_one_rank_but_not_where_groups_are_whole(self):
        flags = ["--shape", MODELS / "moe-8m", "--layers", 2, "--tokens", 512, "--loads", "many-prompts", "--threads", 1,
                 "--repetitions", 1]
        for ranks, skew in (2, 1.64), (3, 1.64):
            balance = {p["rung"]: p["layer"]["row_balance"]
                       for p in self.points("latency", *map(str, flags), "--skew", str(skew), ranks=ranks)}
            # The bias is right in expectation over normal scores. These are of one random router, and only nearly normal.
            for rung in "A ep", "A ep per expert", "A ep split":
                self.assertTrue(1.4 < balance[rung] < 1.9, (ranks, balance))
            # Plan tp cuts where few subtrees are: of three ranks the first has ten experts instead of eleven, so that
            # the favoured ones are on two.
            self.assertTrue((1.4 if ranks == 2 else 1.1) < balance["B tp"] < 1.9, (ranks, balance))
            # Groups are even by construction; of four groups one of three ranks has two, or tp's ranks parts.
            self.assertEqual(balance["D foe"], 1 if ranks == 2 else 2)
            self.assertTrue(balance["C tp grouped"] == 1 if ranks == 2 else balance["C tp grouped"] < 1.4, balance)

    def test_the_smallest_model_has_two_layers(self):
        flags = ["--shape", "paper-1b", "--tokens", "2", "--loads", "decode", "--repetitions", "1", "--threads", "1"]
        done = run("bench", "latency", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("paper-1b, 2 of 16 layers", done.stdout)
        self.assertRegex(done.stdout, r"(?m)^decode +2 +\d+\.\d\d +\d+\.\d\d$")

    def test_grouped_routing_evens_out_the_experts(self):
        flags = ["--shape", MODELS / "moe-8m", "--layers", "2", "--tokens", "64", "--loads", "decode", "--threads", "1",
                 "--repetitions", "1", "--rungs", "B tp,C tp grouped"]
        free, grouped = self.points("latency", *map(str, flags), ranks=2)
        self.assertEqual([p["rung"] for p in (free, grouped)], ["B tp", "C tp grouped"])
        self.assertGreater(free["layer"]["row_balance"], 1)
        self.assertEqual(grouped["layer"]["row_balance"], 1)
        for p in free, grouped:
            self.assertEqual(p["experts"]["local_activation_rate"], 1)
            self.assertEqual(sum(p["experts"]["rows_by_layer_and_expert"][0]), 64 * SELECTED)
        rows = [p["experts"]["rows_by_layer_and_expert"][0] for p in (free, grouped)]
        by_group = [[sum(r[g:g + 8]) for g in range(0, 32, 8)] for r in rows]
        self.assertNotEqual(by_group[0], 4 * [64])
        self.assertEqual(by_group[1], 4 * [64])

    def test_the_bottom_line_needs_both(self):
        flags = ["--shape", MODELS / "foe-8m", "--tokens", "2", "--loads", "decode", "--repetitions", "1", "--threads", "1"]
        done = run("bench", "latency", *map(str, flags), "--rungs", "A ep,D foe")
        self.assertRegex(done.stdout, r"(?m)^decode +2 +\d+\.\d\d +-$")

    def test_comm(self):
        sizes = [1, 64]
        for ranks in 1, 2:
            points = self.points("comm", "--kilobytes", "1,64", "--seconds", "0", ranks=ranks)
            names = [(p["bytes"], p["collective"]) for p in points]
            self.assertEqual(names, [(1024 * s, c) for s in sizes for c in ("sum", "all-to-all", "broadcast")])
            for p in points:
                self.assertGreaterEqual(p["repetitions"], 5)
                self.assertEqual(p["mpi_s"] > 0, ranks > 1)
                # What two ranks read of each other: a half of the terms and of the sum each, a message each, the root's vector.
                reads = {"sum": 2, "all-to-all": 2, "broadcast": 1}[p["collective"]]
                self.assertEqual(p["read_bytes"], reads * p["bytes"] if ranks == 2 else 0)
            self.assertGreater(json.loads(self.json.read_text("utf-8"))["read_bytes_per_second"], 0)

    def test_offline_runs_the_same_tokens_on_any_ranks(self):
        for ranks in 1, 2:
            done = run("bench", "offline", MODELS / "foe-8m", "--threads", "1", "--num-prompts", "10", "--input-len", "30",
                       "--output-len", "6", "--max-sequences", "4", "--json", self.json, ranks=ranks)
            self.assertEqual(done.returncode, 0, done.stderr)
            out = json.loads(self.json.read_text("utf-8"))
            self.assertEqual((out["ranks"], out["requests"], out["prompt_tokens"], out["output_tokens"]), (ranks, 10, 300, 60))

    def test_offline_holds_its_decode_steps_against_the_roofline(self):
        for ranks in 1, 2:
            done = run("bench", "offline", MODELS / "moe-8m", "--threads", "1", "--num-prompts", "3", "--input-len", "30",
                       "--output-len", "6", "--json", self.json, ranks=ranks)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"(?m)^5 steps that only decoded, 3\.0 sequences each with 33\.0 positions: .* % of ")
            decode = json.loads(self.json.read_text("utf-8"))["decode"]
            # The first step takes all prompts; the token at position 30 attends to 31.
            self.assertEqual((decode["steps"], decode["tokens"], decode["positions"]), (5, 15, 3 * (31 + 32 + 33 + 34 + 35)))
            self.assertTrue(5 * 6 * SELECTED // 2 <= decode["experts_touched"] <= 5 * 6 * 3 * 4, decode)
            self.assertAlmostEqual(decode["expected_experts_touched"], 5 * 6 * 32 * (1 - (1 - 4 / 32) ** 3))
            self.assertAlmostEqual(decode["share_of_roofline"], decode["least_seconds"] / decode["seconds"])

    def test_engine_repeats_each_step(self):
        for ranks in 1, 2:
            points = self.points("engine", MODELS / "moe-8m", "--threads", "1", "--prefill", "20,100", "--decode", "1,3",
                                 "--prompt-len", "15", "--chunk", "64", "--seconds", "100", "--repetitions", "3", ranks=ranks)
            self.assertEqual([(p["load"], p["sequences"], p["tokens"], len(p["seconds"])) for p in points],
                             [("prefill", 1, 20, 3), ("prefill", 1, 100, 3), ("decode", 1, 1, 3), ("decode", 3, 1, 3)])
            self.assertTrue(all(second > 0 for p in points for second in p["seconds"]))
        points = self.points("engine", MODELS / "moe-8m", "--prefill", "2", "--decode", "1", "--seconds", "0", ranks=1)
        self.assertEqual([len(p["seconds"]) for p in points], [1, 1])

    def test_makes_a_model_that_runs(self):
        shape = self.json.parent / "shape"  # with more tokens than the tokenizer has
        shape.mkdir()
        config = json.loads((MODELS / "moe-8m" / "config.json").read_text("utf-8"))
        (shape / "config.json").write_text(json.dumps(config | {"vocab_size": 4100}), "utf-8")
        folders = [self.json.parent / name for name in ("a", "b", "c")]
        for folder, form, seed in zip(folders, ("grouped", "grouped", "foe"), (1, 1, 2)):
            done = run("bench", "make-model", folder, "--shape", shape, "--layers", "2", "--form", form,
                       "--seed", str(seed), "--tokenizer", MODELS / "foe-8m")
            self.assertEqual(done.returncode, 0, done.stderr)
        weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
        self.assertEqual(weights[0], weights[1])
        self.assertEqual(len(weights[0]), len(weights[2]))
        self.assertNotEqual(weights[0], weights[2])
        configs = [json.loads((folder / "config.json").read_text("utf-8")) for folder in folders]
        self.assertEqual([(c["num_hidden_layers"], c["expert_groups"], c["residual"]) for c in configs],
                         2 * [(2, 4, "shared")] + [(2, 4, "federated")])
        self.assertEqual(run("tokenize", folders[2], "--decode", "4096,4099").stdout.strip(), "<4096><4099>")
        done = run("bench", "offline", folders[2], "--threads", "1", "--num-prompts", "3", "--input-len", "8",
                   "--output-len", "4", "--json", self.json)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(self.json.read_text("utf-8"))["output_tokens"], 12)

    def test_refuses_what_it_cannot_run(self):
        for flags, status, message in (
            (["latency", "--rungs", "E"], 2, "expected some of 'A ep'"),
            (["latency", "--loads", "none"], 2, "expected one-prompt, many-prompts or decode, got none"),
            (["latency", "--layers", "1"], 2, "--layers"),
            (["latency", "--skew", "0.5"], 2, "--skew"),
            (["latency", "--skew", "1.5"], 1, "--skew: expected 1 (no skew) on one rank"),
            (["latency", "--timeout", "0"], 2, "--timeout"),
            (["latency", "--most-seconds", "nan"], 2, "--most-seconds"),
            (["latency", "--tokens", "0"], 2, "--tokens"),
            (["latency", "--shape", "/nowhere"], 1, "/nowhere"),
            (["comm", "--kilobytes", "x"], 2, "--kilobytes"),
            (["comm", "--wire", "f16"], 2, "--wire"),
            (["comm", "--seconds", "nan"], 2, "--seconds"),
            (["engine", MODELS / "moe-8m", "--prefill", "513"], 1, "expected sequences of at most 512 positions"),
            (["engine", MODELS / "moe-8m", "--decode", "0"], 2, "--decode"),
            (["make-model", MODELS, "--tokenizer", MODELS / "foe-8m"], 1, "expected a folder that is not there yet"),
            (["make-model", "/nowhere/x", "--tokenizer", "/nowhere"], 1, "--tokenizer: expected a folder with tokenizer.json"),
            (["make-model", "/nowhere/x", "--form", "dense", "--tokenizer", MODELS / "foe-8m"], 2, "--form"),
            ([], 2, "subcommand"),
        ):
            done = run("bench", *flags)
            self.assertEqual(done.returncode, status, (flags, done.stderr))
            self.assertIn(message, done.stderr + done.stdout)


class InspectTest(unittest.TestCase):
    def inspect(self, *flags):
        done = run("inspect", *flags, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_roofline_is_what_the_limits_allow(self):
        out = self.inspect(MODELS / "foe-8m", "--roofline", "--batch", "1,1000", "--context", "100", "--threads", "1")
        roofline = out["roofline"]
        self.assertEqual((roofline["threads"], roofline["context"]), (1, 100))
        one, many = roofline["steps"]
        self.assertEqual((one["batch"], one["experts_touched"], many["batch"], many["experts_touched"]), (1, 4, 1000, 32))
        for step in one, many:
            parts = [step[name] for name in ("projections", "attention", "router", "experts", "head")]
            for unit, rate, seconds in (("bytes", "read_bytes_per_second", "reading_s"),
                                        ("flops", "flops_per_second", "arithmetic_s")):
                self.assertAlmostEqual(step["total"][unit], sum(p[unit] for p in parts))
                self.assertAlmostEqual(step[seconds], step["total"][unit] / roofline[rate])
            self.assertEqual(step["seconds"], max(step["reading_s"], step["arithmetic_s"]))
            self.assertAlmostEqual(step["tokens_per_second"], step["batch"] / step["seconds"])
            self.assertEqual(step["attention"]["bytes"], step["batch"] * 100 * out["ranks"][0]["kv_bytes_per_token"])
        # With every expert touched, all that the rank holds is read.
        self.assertEqual(many["total"]["bytes"] - many["attention"]["bytes"], out["ranks"][0]["weight_bytes"])

    def test_roofline_adds_ranks_up(self):
        flags = [MODELS / "moe-8m", "--roofline", "--batch", "4", "--threads", "1", "--plan", "ep"]
        (one,), (two,) = (self.inspect(*flags, "--ranks", str(n))["roofline"]["steps"] for n in (1, 2))
        self.assertEqual(two["projections"]["bytes"], 2 * one["projections"]["bytes"])
        self.assertAlmostEqual(two["experts"]["bytes"], one["experts"]["bytes"])
        self.assertAlmostEqual(two["projections"]["flops"], one["projections"]["flops"])

    def test_roofline_is_printed_when_it_is_asked_for(self):
        table = run("inspect", MODELS / "foe-8m", "--roofline", "--batch", "2").stdout
        self.assertRegex(table, r"(?m)^ +2 +7\.5( +\d+\.\d+){7}$")
        self.assertIn("GFLOP/s", table)
        self.assertNotIn("GFLOP/s", run("inspect", MODELS / "foe-8m").stdout)
        self.assertNotIn("roofline", self.inspect(MODELS / "foe-8m"))

    def test_tensors_are_those_of_the_folder(self):
        out = self.inspect(MODELS / "foe-8m", "--tensors")
        listed = {row["name"].replace("{}", str(i)): row["shape"] for row in out["tensors"] for i in range(row["count"])}
        with open(MODELS / "foe-8m" / "model.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        self.assertEqual(listed, {name: tensor["shape"] for name, tensor in header.items()})
        rows = {row["name"]: row for row in out["tensors"]}
        up = rows["model.layers.1.mlp.experts.{}.up_proj.weight"]
        self.assertEqual((up["count"], up["split"], up["part"]), (32, "experts, rows of width", "experts"))
        self.assertEqual(up["bytes"], 32 * up["shape"][0] * up["shape"][1] * 2)
        table = run("inspect", MODELS / "foe-8m", "--tensors").stdout
        for name in rows:
            self.assertIn(name, table)
        self.assertNotIn("tensors", self.inspect(MODELS / "foe-8m"))

    def test_roofline_refuses_what_it_cannot_know(self):
        for flags, status, message in (
            (["--roofline", "--context", "513"], 1, "--context: expected at most 512, the model's, got 513"),
            (["--roofline", "--ranks", "2", "--nodes", "2"], 1, "--roofline: expected one node"),
            (["--roofline", "--batch", "0"], 2, "--batch"),
            (["--batch", "2"], 2, "--batch requires --roofline"),
        ):
            done = run("inspect", MODELS / "foe-8m", *flags)
            self.assertEqual(done.returncode, status, (flags, done.stderr))
            self.assertIn(message, done.stderr + done.stdout)


class AccountsTest(unittest.TestCase):
    def generate(self, model, plan, ranks):
        done = run("generate", MODELS / model, "--plan", plan, "--prompt", "It was a dark and stormy", "--max-tokens", "8",
                   "--ignore-eos", "--threads", "1", "--json", ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_generate_says_what_each_rank_exchanged_and_where_experts_ran(self):
        for model, plan, local in (("moe-8m", "tp", 1), ("moe-8m", "ep", None), ("foe-8m", "foe", 1)):
            rows = []
            for ranks in 1, 2:
                out = self.generate(model, plan, ranks)
                experts = out["experts"]
                rows.append(experts["rows_by_layer_and_expert"])
                tokens = out["prompt_tokens"] + out["decode_steps"]
                self.assertEqual([sum(layer) for layer in rows[-1]], 5 * [SELECTED * tokens] + [SELECTED * 8])
                self.assertGreaterEqual(experts["row_balance"], 1)
                if local == 1 or ranks == 1:
                    self.assertEqual(experts["local_activation_rate"], 1)
                else:
                    self.assertTrue(0 < experts["local_activation_rate"] < 1)
                for phase, steps in ("prefill", 1), ("decode", out["decode_steps"]):
                    by_rank = out[f"{phase}_counters_by_rank"]
                    self.assertEqual(len(by_rank), ranks)
                    for rank in by_rank:
                        self.assertEqual(rank["broadcast"]["calls"], steps if ranks > 1 else 0)
                        for counter in rank.values():
                            self.assertGreaterEqual(counter["moving_s"], 0)
                            self.assertGreaterEqual(counter["waiting_s"], 0)
            self.assertEqual(rows[0], rows[1], plan)

    def test_generate_prints_them(self):
        done = run("generate", MODELS / "moe-8m", "--plan", "ep", "--prompt", "It was", "--max-tokens", "3", "--ignore-eos",
                   "--stats", ranks=2)
        self.assertRegex(done.stderr, r"(?m)^ +1 +all-to-all +36 +36 ")  # calls and messages: 2 in 6 layers and 3 steps
        self.assertRegex(done.stderr, r"% of selections on the token's own rank; rows on the fullest rank \d")
        self.assertRegex(done.stderr, r"rows of the fullest expert over the mean, by layer:( \d+\.\d\d){6}\n")


if __name__ == "__main__":
    FOE = sys.argv.pop(1)
    unittest.main(verbosity=2)
