#!/usr/bin/env python3
"""Records of routes as a user meets them: what is in the files, as the safetensors library reads them, and that a replay
has the bits of its recording.

    tests/python.sh tests/apps/routes_test.py build/foe
    tests/python.sh tests/apps/routes_test.py build/foe -k serve   # other arguments are unittest's

The formats and flags are those of docs/routes.md.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / "oracle"), str(TESTS / "server")]
import foe_oracle  # noqa: E402
import routing_oracle  # noqa: E402
import serve_test  # noqa: E402
from random_model import make_config, write_random_model  # noqa: E402
from serve_test import Server, wait_until  # noqa: E402

FOE = None
PATIENCE_S = 120
FOLDER = None  # of the models, made once
LAYERS, EXPERTS, PER_TOKEN, WIDTH, VOCAB = 3, 16, 4, 64, 561
TOKENS = np.random.default_rng(1).integers(0, VOCAB, 90)


def setUpModule():
    global FOLDER
    FOLDER = Path(tempfile.mkdtemp(prefix="foe-routes-test-"))
    config = dict(num_hidden_layers=LAYERS, hidden_size=WIDTH, vocab_size=VOCAB, max_position_embeddings=1024)
    write_random_model(FOLDER / "moe", make_config(**config), seed=3)
    write_random_model(FOLDER / "other", make_config(**config), seed=4)
    write_random_model(FOLDER / "dense", make_config(num_experts=0, num_experts_per_tok=0, moe_intermediate_size=64,
                                                     vocab_size=VOCAB), seed=5)
    for model in ("moe", "other"):
        shutil.copy(TESTS / "golden/tokenizer/gpt2.json", FOLDER / model / "tokenizer.json")


def tearDownModule():
    shutil.rmtree(FOLDER)


def run(command, *arguments, ranks=1, model="moe", status=0):
    """Returns what it prints, on standard error if it is to fail."""
    launcher = ["mpirun", "-n", ranks, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca",
                "mpi_yield_when_idle", "1"] if ranks > 1 else []
    words = [*launcher, FOE, command, FOLDER / model, "--threads", 1, *arguments]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE_S)
    if (done.returncode == 0) != (status == 0):
        raise AssertionError(f"{words}: {done.returncode}: {done.stderr}")
    return done.stderr if status else done.stdout


def metadata_of(path):
    with safe_open(path, "np") as file:
        return file.metadata()


class Routes(unittest.TestCase):

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def logits(self, *arguments, **how):
        """Returns the bytes of the logits' file."""
        path = self.folder / "logits"
        run("logits", "--tokens", ",".join(map(str, TOKENS)), "--output", path, *arguments, **how)
        return path.read_bytes()

    def changed(self, path, change, name="changed"):
        """Writes another record with what `change` makes of its tensors and metadata."""
        tensors, metadata = load_file(path), metadata_of(path)
        change(tensors, metadata)
        save_file(tensors, self.folder / name, metadata)
        return self.folder / name


class Files(Routes):

    def test_a_record_has_what_the_router_did(self):
        path = self.folder / "r"
        self.logits("--route-trace", path, "--route-trace-with", "inputs,scores", "--chunk", 40)
        metadata, r = metadata_of(path), load_file(path)
        digest = metadata.pop("model")
        self.assertRegex(digest, "^[0-9a-f]{16}$")
        self.assertEqual(metadata, {"foe_routes": "1", "plan": "tp", "ranks": "1", "layers": "3", "entries": "4",
                                    "experts": "16,16,16", "complete": "yes"})
        n = len(TOKENS)
        shapes = {"sequences": (n,), "positions": (n,), "tokens": (n,), "steps": (n,), "owners": (n,),
                  "experts": (n, LAYERS, PER_TOKEN), "weights": (n, LAYERS, PER_TOKEN), "scores": (n, LAYERS, EXPERTS),
                  "inputs": (n, LAYERS, WIDTH)}
        self.assertEqual({name: tensor.shape for name, tensor in r.items()}, shapes)
        np.testing.assert_array_equal(r["tokens"], TOKENS)
        np.testing.assert_array_equal(r["positions"], np.arange(n))
        np.testing.assert_array_equal(r["steps"], np.arange(n) // 40)
        self.assertFalse(r["sequences"].any() or r["owners"].any())
        _, weights = foe_oracle.load(FOLDER / "moe")
        for layer in range(LAYERS):
            gate = weights[f"model.layers.{layer}.mlp.gate.weight"].astype(np.float64)
            inputs, scores = r["inputs"][:, layer].astype(np.float64), r["scores"][:, layer].astype(np.float64)
            # A dot product of WIDTH terms in f32 is off by no more than this share of the sum of their sizes.
            bound = WIDTH * 2.0**-24 * (np.abs(inputs) @ np.abs(gate).T)
            self.assertTrue((np.abs(inputs @ gate.T - scores) <= bound).all())
            for t in range(n):
                expected = routing_oracle.olmoe(scores[t], PER_TOKEN)
                chosen = np.flatnonzero(~np.isnan(expected))
                np.testing.assert_array_equal(r["experts"][t, layer], chosen)
                np.testing.assert_allclose(r["weights"][t, layer], expected[chosen], rtol=1e-5)

    def test_a_replay_has_the_bits_of_its_recording(self):
        path = self.folder / "r"
        expected = self.logits()
        self.assertEqual(self.logits("--route-trace", path), expected)
        record = load_file(path)
        for ranks, flags in ((1, ["--chunk", 7]), (2, ["--plan", "tp"]), (3, ["--plan", "ep", "--chunk", 50]),
                             (2, ["--plan", "pp"])):
            with self.subTest(ranks=ranks, flags=flags):
                again = self.folder / f"again{ranks}{flags[-1]}"
                self.assertEqual(self.logits("--route", path, *flags, ranks=ranks), expected)
                self.assertEqual(self.logits("--route-trace", again, *flags, ranks=ranks), expected)
                for name in ("sequences", "positions", "tokens", "experts", "weights"):
                    np.testing.assert_array_equal(load_file(again)[name], record[name])
                self.assertEqual(self.logits("--route", again), expected)

        def swap(tensors, metadata):
            tensors["experts"][5, 1] = [0, 1, 2, 3]

        changed = self.changed(path, swap)
        other = self.logits("--route", changed)
        self.assertNotEqual(other, expected)
        self.assertEqual(self.logits("--route", changed, "--plan", "ep", ranks=2), other)

        def forget(tensors, metadata):  # what is behind the record is for the router
            for name in tensors:
                tensors[name] = tensors[name][:30]

        self.assertEqual(self.logits("--route", self.changed(path, forget)), expected)

    def test_other_records_are_refused(self):
        path = self.folder / "r"
        self.logits("--route-trace", path)

        def refusal(change):
            def change_both(tensors, metadata):
                change(tensors, metadata)
            return self.refusal("--route", self.changed(path, change_both))

        def put(name, at, value):
            def change(tensors, metadata):
                tensors[name][at] = value
            return change

        self.assertIn("position 7, layer 2: expected experts in [0, 16), got 16", refusal(put("experts", (7, 2, 3), 16)))
        self.assertIn("expected ascending experts, each once", refusal(put("experts", (0, 0), [3, 3, 4, 5])))
        self.assertIn("expected a weight that is finite and not negative, got nan",
                      refusal(put("weights", (2, 1, 0), np.nan)))
        self.assertIn("position 3: expected a record of the prompt's token", refusal(put("tokens", 3, 5)))
        self.assertIn("expected position 4, got 5: some are missing",
                      refusal(lambda t, m: t.update({k: np.delete(v, 4, axis=0) for k, v in t.items()})))
        self.assertIn("experts: expected type I32, got I16",
                      refusal(lambda t, m: t.update(experts=t["experts"].astype(np.int16))))
        self.assertIn("experts: expected shape [90, 3, 4], got [90, 3, 5]",
                      refusal(lambda t, m: t.update(experts=np.pad(t["experts"], ((0, 0), (0, 0), (0, 1))))))
        self.assertIn("expected the model's 3 layers of 4 experts, got 3 layers of 5", refusal(self.widen))
        (self.folder / "cut").write_bytes(path.read_bytes()[:-1])
        self.assertIn("cut: ", self.refusal("--route", self.folder / "cut"))
        self.assertIn("expected a readable file", self.refusal("--route", self.folder / "none"))
        self.assertIn("expected sequence 4 to be in it", self.refusal("--route", path, "--route-sequence", 4))
        self.assertIn("expected a record of this model, whose digest is", self.refusal("--route", path, model="other"))
        self.assertIn("expected a model with a router",
                      self.refusal("--route-trace", self.folder / "d", model="dense"))
        self.assertIn("expected scores, inputs or both", self.refusal("--route-trace", self.folder / "d",
                                                                      "--route-trace-with", "weights"))

    @staticmethod
    def widen(tensors, metadata):
        metadata["entries"] = "5"
        wider = ((0, 0), (0, 0), (0, 1))
        tensors.update(experts=np.pad(tensors["experts"], wider, constant_values=-1),
                       weights=np.pad(tensors["weights"], wider))

    def refusal(self, *arguments, **how):
        return run("logits", "--tokens", ",".join(map(str, TOKENS)), "--output", self.folder / "l", *arguments, status=1,
                   **how)

    def test_a_record_ends_at_its_limit_and_the_run_does_not(self):
        path, expected = self.folder / "r", self.logits()
        self.assertEqual(self.logits("--route-trace", path, "--route-trace-bytes", 5000, "--chunk", 10), expected)
        self.assertEqual(metadata_of(path)["complete"], "no: the most bytes were reached")
        length = len(load_file(path)["tokens"])
        self.assertTrue(0 < length < len(TOKENS) and length % 10 == 0, length)
        self.assertEqual(self.logits("--route", path), expected)

    def test_generate(self):
        path, again = self.folder / "r", self.folder / "again"
        arguments = ("--prompt", "The quick brown fox", "--max-tokens", 30, "--json")

        def tokens(*more, **how):
            return json.loads(run("generate", *arguments, *more, **how))["tokens"]

        expected = tokens("--route-trace", path)
        r = load_file(path)
        prompt = len(r["tokens"]) - len(expected) + 1  # the last token is not fed back
        np.testing.assert_array_equal(r["tokens"][prompt:], expected[:-1])
        # The last layer runs what is sampled: the last token of the prompt, and all that follow.
        np.testing.assert_array_equal((r["experts"][:, -1] == -2).all(axis=1), np.arange(len(r["tokens"])) < prompt - 1)
        self.assertTrue((r["experts"][:, :-1] >= 0).all())
        self.assertEqual(tokens("--route", path), expected)
        self.assertEqual(tokens("--route", path, "--route-trace", again, "--plan", "ep", ranks=2), expected)
        np.testing.assert_array_equal(load_file(again)["weights"], r["weights"])

        def reverse(tensors, metadata):
            run_here = tensors["experts"][..., :1] >= 0
            tensors["experts"] = np.where(run_here, EXPERTS - 1 - tensors["experts"][..., ::-1], tensors["experts"])

        changed = self.changed(path, reverse)
        other = tokens("--route", changed)
        self.assertNotEqual(other, expected)
        self.assertEqual(tokens("--route", changed, "--plan", "ep", ranks=3), other)
        self.assertIn("expected a record of the prompt's token",
                      run("generate", "--prompt", "Another", "--route", path, status=1))

    def test_a_run_that_is_killed_leaves_a_partial_file(self):
        path, partial = self.folder / "r", self.folder / "r.partial"
        words = [FOE, "generate", FOLDER / "moe", "--threads", 1, "--prompt", "It was", "--max-tokens", 900, "--route-trace", path]
        with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE) as process:
            process.stdout.read(20)
            process.send_signal(signal.SIGINT)
        self.assertFalse(path.exists())
        self.assertGreater(partial.stat().st_size, 100)
        self.logits("--route-trace", path)
        self.assertFalse(partial.exists())
        np.testing.assert_array_equal(load_file(path)["tokens"], TOKENS)


class Serve(Routes):

    PROMPTS = ["The quick brown fox jumps over", "The quick brown fox jumps over a dog", "It was"]

    def encoded(self, path, sequence, change=lambda tensors: None):
        """One sequence of a record, in base64."""
        def choose(tensors, metadata):
            rows = tensors["sequences"] == sequence
            for name in tensors:
                tensors[name] = np.ascontiguousarray(tensors[name][rows])
            change(tensors)
        return base64.b64encode(self.changed(path, choose, "one").read_bytes()).decode()

    def sequence_of(self, path, prompt_tokens):
        r = load_file(path)
        for sequence in np.unique(r["sequences"]):
            if list(r["tokens"][r["sequences"] == sequence][:len(prompt_tokens)]) == prompt_tokens:
                return sequence
        raise AssertionError(f"no sequence begins with {prompt_tokens}")

    @staticmethod
    def reverse(tensors):
        run_here = tensors["experts"][..., :1] >= 0
        tensors["experts"] = np.where(run_here, EXPERTS - 1 - tensors["experts"][..., ::-1], tensors["experts"])

    def test_serve_records_through_losses_and_replays(self):
        path = self.folder / "r"
        fields = dict(max_tokens=400, ignore_eos=True)
        with Server(2, "--plan", "ep", "--route-trace", path, "--chunk", 8, model=FOLDER / "moe") as server:
            prompts = {prompt: server.tokens(prompt) for prompt in self.PROMPTS}
            texts = {prompt: server.text(prompt=prompt, **fields) for prompt in self.PROMPTS[:2]}
            with server.stream(prompt=self.PROMPTS[2], **fields) as chunks:
                text = next(chunks)["choices"][0]["text"]
                os.kill(server.ranks()[1], signal.SIGKILL)
                texts[self.PROMPTS[2]] = text + "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertTrue(server.logged("the ranks are up again"))
            self.assertTrue((self.folder / "r.partial").exists() and not path.exists())
        self.assertTrue(path.exists() and not (self.folder / "r.partial").exists())
        r = load_file(path)
        self.assertEqual(len(np.unique(r["sequences"])), 3)  # not the request that warms up the ranks
        routes = {}
        for prompt, ids in prompts.items():
            sequence = self.sequence_of(path, ids)
            rows = r["sequences"] == sequence
            # Whole, although two begin alike and one was computed again after the loss.
            np.testing.assert_array_equal(r["positions"][rows], np.arange(len(ids) + 399))
            self.assertTrue((np.diff(r["steps"][rows]) >= 0).all())
            routes[prompt] = self.encoded(path, sequence)
            changed = self.encoded(path, sequence, self.reverse)
        with Server(1, "--allow-routes", model=FOLDER / "moe") as server:
            for prompt, route in routes.items():
                self.assertEqual(server.text(prompt=prompt, foe_route=route, **fields), texts[prompt])
            forced = server.text(prompt=self.PROMPTS[2], foe_route=changed, **fields)
            self.assertNotEqual(forced, texts[self.PROMPTS[2]])
            self.assertEqual(server.text(prompt=self.PROMPTS[2], **fields), texts[self.PROMPTS[2]])
            # A route is in the journal: the text goes on as it began.
            with server.stream(prompt=self.PROMPTS[2], foe_route=changed, **fields) as chunks:
                text = next(chunks)["choices"][0]["text"]
                os.kill(server.ranks()[0], signal.SIGKILL)
                self.assertEqual(text + "".join(chunk["choices"][0]["text"] for chunk in chunks), forced)
        with Server(1, "--allow-routes", model=FOLDER / "other") as server:
            status, _, body = server.request("POST", "/v1/completions", dict(prompt="It was", foe_route=changed))
            self.assertEqual(status, 400)
            self.assertIn("expected a record of this model", json.loads(body)["error"]["message"])
        with Server(1, model=FOLDER / "moe") as server:
            status, _, body = server.request("POST", "/v1/completions", dict(prompt="It was", foe_route=changed))
            error = json.loads(body)["error"]
            self.assertEqual((status, error["param"]), (400, "foe_route"))
            self.assertIn("--allow-routes", error["message"])

    def test_serve_that_is_killed_leaves_a_partial_file(self):
        path = self.folder / "r"
        with Server(1, "--route-trace", path, model=FOLDER / "moe") as server:
            server.text(prompt="It was", max_tokens=5)
            size = (self.folder / "r.partial").stat().st_size
            self.assertGreater(size, 100)
            second = subprocess.run([FOE, "serve", str(FOLDER / "moe"), "--port", "0", "--route-trace", str(path)],
                                    capture_output=True, text=True, timeout=PATIENCE_S)
            self.assertEqual(second.returncode, 1)
            self.assertIn("another process is recording routes there", second.stderr)
            server.end(signal.SIGKILL)
        self.assertFalse(path.exists())
        self.assertEqual((self.folder / "r.partial").stat().st_size, size)

    def test_serve_that_cannot_start_writes_no_record(self):
        path = self.folder / "none" / "r"
        done = subprocess.run([FOE, "serve", str(FOLDER / "moe"), "--port", "0", "--route-trace", str(path)],
                              capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("r.partial: expected to create it, got: No such file or directory", done.stderr)


TRAIN = """
[model]
vocab_size = 4096
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 16
num_experts = 8
num_experts_per_tok = 2
moe_intermediate_size = 16
[data]
tokens = "tokens"
tokenizer = "tokenizer"
[train]
sequence_length = 16
batch_sequences = 4
steps = 5
[run]
valid_every = 3
valid_tokens = 64
"""


class Train(Routes):

    def test_train(self):
        tokens = self.folder / "tokens"
        tokens.mkdir()
        (self.folder / "tokenizer").mkdir()
        (self.folder / "tokenizer/tokenizer.json").write_text("{}")
        rng = np.random.default_rng(0)
        for name, count in (("train", 2000), ("valid", 100)):
            (tokens / f"{name}.u16").write_bytes(rng.integers(0, 4096, count).astype("<u2").tobytes())
        part = {name: {"file": f"{name}.u16", "tokens": count, "bytes": 4 * count}
                for name, count in (("train", 2000), ("valid", 100))}
        (tokens / "meta.json").write_text(json.dumps({"vocab_size": 4096, "end_of_text": 0} | part))
        (self.folder / "tiny.toml").write_text(TRAIN)
        path = self.folder / "r"

        def train(run_dir, *arguments, status=0):
            words = [FOE, "train", self.folder / "tiny.toml", "--run", self.folder / run_dir, "--threads", 1, *arguments]
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE_S)
            self.assertEqual(done.returncode, status, done.stderr)
            return done.stderr

        train("plain")
        train("traced", "--route-trace", path)
        model = "model/model.safetensors"
        self.assertEqual((self.folder / "traced" / model).read_bytes(), (self.folder / "plain" / model).read_bytes())
        r, metadata = load_file(path), metadata_of(path)
        self.assertEqual((metadata["model"], metadata["experts"]), ("in training", "8,8"))
        n = 5 * 4 * 16
        self.assertEqual(r["experts"].shape, (n, 2, 2))
        np.testing.assert_array_equal(r["sequences"], np.arange(n) // 16)
        np.testing.assert_array_equal(r["positions"], np.arange(n) % 16)
        np.testing.assert_array_equal(r["steps"], np.arange(n) // 64)
        self.assertTrue((np.diff(r["experts"], axis=-1) > 0).all() and (r["experts"] >= 0).all())
        self.assertTrue((r["weights"] > 0).all() and (r["weights"].sum(axis=-1) <= 1.0001).all())
        data = np.frombuffer((tokens / "train.u16").read_bytes(), "<u2")
        windows = np.lib.stride_tricks.sliding_window_view(data, 16)
        for sequence in r["tokens"].reshape(-1, 16):
            self.assertTrue((windows == sequence).all(axis=1).any())
        self.assertEqual(train("traced", "--evaluate", "--route-trace", path, status=2).count("--route-trace"), 1)


if __name__ == "__main__":
    FOE = serve_test.ARGS.foe = sys.argv.pop(1)
    unittest.main(verbosity=2)
