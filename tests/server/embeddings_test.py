#!/usr/bin/env python3
"""Asks `foe serve` for embeddings: with OpenAI's client, with bodies that are wrong, and while ranks die. What comes is
compared with the float64 oracle, and with what another number of ranks under another plan says.

    tests/server/embeddings_test.py build/foe
"""

import base64
import json
import os
import signal
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai

import serve_test
from serve_test import CONTEXT, Server, setUpModule, tearDownModule, wait_until  # noqa: F401
import foe_oracle

TEXTS = ["It was a dark night", "a", "the wind blew over the hills, and the rain fell on the roofs of the town " * 4,
         "It was a dark night", "It was a dark night in the town"]
# Bits do not depend on any of these.
WAYS = [(1, "--kv-dtype", "f32"), (2, "--kv-dtype", "f32", "--chunk", 16, "--max-sequences", 2),
        (3, "--kv-dtype", "f32", "--plan", "pp", "--chunk", 16), (4, "--kv-dtype", "f32", "--stages", 2)]


def numbers_of(response):
    """As f32, of a reply in base64 or as floats."""
    return np.array([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") if isinstance(one["embedding"], str)
                     else np.array(one["embedding"], np.float32) for one in response["data"]])


class Embeddings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Server(2, "--kv-dtype", "f32"))
        cls.client = cls.enterClassContext(openai.OpenAI(base_url=f"http://127.0.0.1:{cls.server.port}/v1", api_key="none",
                                                         max_retries=0))

    def ask(self, server=None, **fields):
        return (server or self.server).complete("/v1/embeddings", **fields)

    def test_openais_client(self):
        # Without a format the client asks for base64, and decodes it.
        made = self.client.embeddings.create(model="tiny", input=TEXTS)
        self.assertEqual((made.object, made.model, [one.index for one in made.data]), ("list", "tiny", [0, 1, 2, 3, 4]))
        floats = self.client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
        encoded = self.client.embeddings.create(model="tiny", input=TEXTS, encoding_format="base64")
        for a, b, c in zip(made.data, floats.data, encoded.data):
            self.assertEqual(a.object, "embedding")
            self.assertEqual(a.embedding, b.embedding)
            self.assertEqual(np.frombuffer(base64.b64decode(c.embedding), "<f4").tolist(), b.embedding)
            self.assertAlmostEqual(np.linalg.norm(b.embedding), 1, places=6)
        self.assertEqual(made.data[0].embedding, made.data[3].embedding)
        self.assertNotEqual(made.data[0].embedding, made.data[1].embedding)
        tokens = [self.server.tokens(text) for text in TEXTS]
        self.assertEqual((made.usage.prompt_tokens, made.usage.total_tokens), (sum(map(len, tokens)),) * 2)
        ids = self.client.embeddings.create(model="tiny", input=tokens)
        self.assertEqual([one.embedding for one in ids.data], [one.embedding for one in made.data])
        one = self.client.embeddings.create(model="tiny", input=tokens[0], dimensions=128, user="me")
        self.assertEqual(one.data[0].embedding, made.data[0].embedding)
        alone = self.client.embeddings.create(model="tiny", input=TEXTS[2])
        self.assertEqual(alone.data[0].embedding, made.data[2].embedding)
        with self.assertRaises(openai.BadRequestError) as refused:
            self.client.embeddings.create(model="tiny", input="a", dimensions=64)
        self.assertEqual(refused.exception.param, "dimensions")

    def test_the_oracle(self):
        config, weights = foe_oracle.load(serve_test.MODEL)
        for length in (1, 5, 12, 30):
            tokens = np.random.default_rng(0).integers(0, config["vocab_size"], length).tolist()
            oracle = foe_oracle.forward(config, weights, tokens)
            self.assertGreater(oracle.router_margin, 1e-4, "a rounding may choose another expert")
            for pooling, expected in (("last", oracle.states_TD[-1]), ("mean", oracle.states_TD.mean(axis=0))):
                for normalize in (True, False):
                    got = numbers_of(self.ask(input=tokens, pooling=pooling, normalize=normalize))[0]
                    wanted = expected / np.linalg.norm(expected) if normalize else expected
                    self.assertLess(np.max(np.abs(got - wanted)), 2e-5 * np.max(np.abs(wanted)))

    def test_every_way_to_run_gives_the_same_bits(self):
        asked = [dict(input=TEXTS, pooling=pooling, normalize=normalize, encoding_format=form)
                 for pooling in ("last", "mean") for normalize in (True, False) for form in ("float", "base64")]
        expected = [numbers_of(self.ask(**fields)) for fields in asked]
        for i in range(0, len(asked), 2):
            np.testing.assert_array_equal(expected[i], expected[i + 1])
        for ranks, *flags in WAYS:
            with self.subTest(ranks=ranks, flags=flags), Server(ranks, *flags) as server:
                with ThreadPoolExecutor(len(asked) + 2) as pool:  # beside others
                    texts = [pool.submit(server.text, prompt="It was a dark", max_tokens=30) for _ in range(2)]
                    for want, got in zip(expected, pool.map(lambda fields: self.ask(server, **fields), asked)):
                        np.testing.assert_array_equal(want, numbers_of(got))
                self.assertEqual(texts[0].result(), texts[1].result())

    def test_more_inputs_than_may_be_in_flight(self):
        """As langchain sends them, which cuts texts into a thousand pieces."""
        texts = [f"text {i}" for i in range(1000)]
        with ThreadPoolExecutor(3) as pool:
            many = list(pool.map(lambda pooling: numbers_of(self.ask(input=texts, pooling=pooling)), ("last", "mean", "last")))
            self.assertEqual(many[0].shape, (1000, 128))
        np.testing.assert_array_equal(many[0], many[2])
        np.testing.assert_array_equal(many[0][::100], numbers_of(self.ask(input=texts[::100])))
        np.testing.assert_array_equal(many[1][::100], numbers_of(self.ask(input=texts[::100], pooling="mean")))

    def test_the_prefix_cache(self):
        tokens = self.server.tokens(TEXTS[2] * 2)
        first = self.ask(input=tokens, cache_salt="cache")
        again = self.ask(input=tokens, cache_salt="cache")
        self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], (len(tokens) - 1) // 16 * 16)
        self.assertEqual(again["data"], first["data"])
        mean = self.ask(input=tokens, cache_salt="cache", pooling="mean")
        self.assertEqual(mean["usage"]["prompt_tokens_details"]["cached_tokens"], 0)

    def test_a_conversation_is_embedded_as_the_template_writes_it(self):
        messages = [{"role": "user", "content": "hi there"}]
        self.assertEqual(self.ask(messages=messages)["data"], self.ask(input="user: hi there\n")["data"])

    def test_a_killed_rank_is_a_pause(self):
        texts = [f"{i} " * 100 for i in range(100)]
        expected = numbers_of(self.ask(input=texts, pooling="mean"))
        for victim in (0, 1):
            restarts = len(self.server.logged("the ranks are up again; "))
            ranks = self.server.ranks()
            for pid in ranks:  # so that the answer cannot come before
                os.kill(pid, signal.SIGSTOP)
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(self.ask, input=texts, pooling="mean")
                wait_until(lambda: json.loads(self.server.request("GET", "/load")[2])["server_load"] > 0, "in flight")
                os.kill(ranks[victim], signal.SIGKILL)
                os.kill(ranks[1 - victim], signal.SIGCONT)
                wait_until(lambda: len(self.server.logged("the ranks are up again; ")) > restarts, "ranks up again")
                np.testing.assert_array_equal(numbers_of(answer.result()), expected)

    def test_a_client_that_leaves_is_forgotten(self):
        connection = self.server.connect()
        connection.request("POST", "/v1/embeddings", json.dumps({"input": ["x " * 2000] * 500, "pooling": "mean"}))
        wait_until(lambda: json.loads(self.server.request("GET", "/load")[2])["server_load"] > 0, "in flight")
        connection.close()
        wait_until(lambda: json.loads(self.server.request("GET", "/load")[2])["server_load"] == 0, "nothing in flight")
        self.ask(input="a")

    def test_metrics(self):
        def counted():
            lines = self.server.request("GET", "/metrics")[2].decode().splitlines()
            return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}
        before = counted()
        self.ask(input=["a b c", "d"], cache_salt="metrics")
        after = counted()

        def added(name, labels=""):
            key = f'foe:{name}{{{labels}model_name="tiny"}}'
            return after[key] - before[key]
        tokens = len(self.server.tokens("a b c")) + len(self.server.tokens("d"))
        self.assertEqual(added("request_success_total", 'finished_reason="stop",'), 2)
        self.assertEqual(added("request_prompt_tokens_sum"), tokens)
        self.assertEqual(added("prompt_tokens_total"), tokens)
        self.assertEqual(added("e2e_request_latency_seconds_count"), 2)
        self.assertEqual(added("generation_tokens_total"), 0)
        self.assertEqual(added("time_to_first_token_seconds_count"), 0)

    def test_what_is_refused(self):
        many = ["a"] * 2049
        for param, fields in {
                "input": [{}, {"input": None}, {"input": ""}, {"input": []}, {"input": [""]}, {"input": [[]]}, {"input": 5},
                          {"input": {}}, {"input": ["a", 1]}, {"input": [1, "a"]}, {"input": [[1], 2]}, {"input": [561]},
                          {"input": [-1]}, {"input": [1e30]}, {"input": [[[1]]]}, {"input": many}, {"input": [1] * (CONTEXT + 1)},
                          {"input": "a " * (CONTEXT + 10)}, {"input": [True]}],
                "dimensions": [{"input": "a", "dimensions": n} for n in (0, -1, 1, 127, 1e99, "128", 0.5)],
                "encoding_format": [{"input": "a", "encoding_format": form} for form in ("bytes", 5, [])],
                "pooling": [{"input": "a", "pooling": "cls"}],
                "truncate_prompt_tokens": [{"input": "a", "truncate_prompt_tokens": n} for n in (0, CONTEXT + 1, "x")],
                "max_tokens": [{"input": "a", "max_tokens": 1}],
                "inputs": [{"input": "a", "inputs": "b"}],
                "receipt": [{"input": "a", "receipt": True}]}.items():
            for body in fields:
                status, _, answer = self.server.request("POST", "/v1/embeddings", body)
                self.assertEqual((status, json.loads(answer)["error"]["param"]), (400, param), str(body)[:100])
        for body in (b"", b"[", b"[]", b'{"input": "a", "dimensions": NaN}', b"\xff" * 9):
            self.assertEqual(self.server.request("POST", "/v1/embeddings", body)[0], 400)
        self.assertEqual(self.server.request("GET", "/v1/embeddings")[0], 405)
        self.assertEqual(self.server.request("POST", "/v1/embeddings", {"model": "other", "input": "a"})[0], 404)
        self.ask(input=[1] * CONTEXT)  # the whole context, as there is no answer


if __name__ == "__main__":
    serve_test.ARGS.foe = str(Path(sys.argv[1]).resolve())
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], warnings="ignore")
