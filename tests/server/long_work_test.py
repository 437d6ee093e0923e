#!/usr/bin/env python3
"""Gives `foe serve` work that takes long, while others stream: long texts, large schemas, ranks that say nothing.

    tests/server/long_work_test.py build/foe [--schemas N]

No test asserts how long something took; what is counted is what others get meanwhile.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import serve_test
from random_model import write_random_model, make_config
from serve_test import Server, wait_until

LONG_CONTEXT = 1 << 18  # of 14 bytes at most: a text that cannot fit is refused before it is work
TEXT_BYTES = 3_000_000


def setUpModule():
    serve_test.PATIENCE_S = 600  # hundreds of large schemas take minutes on a slow machine
    serve_test.setUpModule()


def tearDownModule():
    serve_test.tearDownModule()


def folder_with(name, **config):
    """A model like the others' with a longer context, or whatever else of its config."""
    folder = serve_test.MODEL.parent / os.fsdecode(name)
    write_random_model(folder, make_config(hidden_size=128, num_hidden_layers=4, vocab_size=561, residual="federated",
                                        expert_groups=4, group_sync="sum", **config), seed=5)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((serve_test.MODEL / file).read_bytes())
    return folder


class LongTexts(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.server = Server(1, model=folder_with("long", max_position_embeddings=LONG_CONTEXT))
        cls.enterClassContext(cls.server)

    def check_others_stream(self, path, body):
        """Streams while `body` is in work, which takes long, and returns the answer to that."""
        done = threading.Event()
        def ask():
            try:
                return self.server.request("POST", path, body)
            finally:
                done.set()
        with self.server.stream(prompt="It was", max_tokens=100_000, ignore_eos=True) as chunks, ThreadPoolExecutor(1) as pool:
            next(chunks)
            answer = pool.submit(ask)
            meanwhile = 0
            while not done.is_set() and next(chunks):
                meanwhile += 1
            self.assertGreaterEqual(meanwhile, 20)
            status, _, body = answer.result()
            return status, json.loads(body)

    def test_a_long_text_to_tokenize(self):
        text = "".join(f"{i} naïve words, " for i in range(TEXT_BYTES))[:TEXT_BYTES]
        status, answer = self.check_others_stream("/tokenize", {"prompt": text})
        self.assertEqual(status, 200)
        self.assertEqual(answer["count"], len(answer["tokens"]))
        # In parts that end where words do it is the same.
        cut = text.index(", ", TEXT_BYTES // 2)
        parts = [self.server.tokens(text[:cut]), self.server.tokens(text[cut:])]
        self.assertEqual(answer["tokens"], parts[0] + parts[1])

    def test_a_long_list_of_ids(self):
        ids = [i % 500 for i in range(2 * LONG_CONTEXT)]
        status, answer = self.check_others_stream("/detokenize", {"tokens": ids})
        self.assertEqual(status, 200)

    def test_a_long_chat(self):
        status, answer = self.check_others_stream(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": "words and more " * 100_000}] * 2})
        self.assertEqual((status, answer["error"]["param"]), (400, "messages"))

    def test_short_texts_overtake_long_ones(self):
        with ThreadPoolExecutor(8) as pool:
            long_ones = [pool.submit(self.server.request, "POST", "/tokenize", {"prompt": "x y " * 700_000})
                         for _ in range(8)]
            self.assertEqual(len(self.server.tokens("a b")), 2)
            self.assertFalse(all(one.done() for one in long_ones))
            for one in long_ones:
                self.assertEqual(one.result()[0], 200)

    def test_clients_that_leave_with_long_texts(self):
        body = json.dumps({"prompt": "x y " * 700_000}).encode()
        for _ in range(50):
            connection = self.server.connect()
            connection.request("POST", "/tokenize", body)
            connection.close()
        self.assertEqual(len(self.server.tokens("a b")), 2)  # and the end of the server waits for nothing


class Silence(unittest.TestCase):

    def test_a_stream_without_tokens_says_that_it_is_there(self):
        with Server(1, "--hang-timeout", 600) as server:
            expected = server.text(prompt="It was", max_tokens=5)
            (rank,) = server.ranks()
            os.kill(rank, signal.SIGSTOP)
            try:
                connection = server.connect()
                connection.request("POST", "/v1/completions", json.dumps({"prompt": "It was", "max_tokens": 5, "stream": True}))
                response = connection.getresponse()
                for _ in range(2):
                    self.assertTrue(response.readline().startswith(b":"))
                    self.assertEqual(response.readline(), b"\n")
            finally:
                os.kill(rank, signal.SIGCONT)
            text = "".join(chunk["choices"][0]["text"] for chunk in serve_test.chunks_of(response))
            self.assertEqual(text, expected)


def large_schema(n=0):
    """About 100 KB, and no other n's."""
    properties = {f"{'x' * 50}{n:04}{i:04}": {"anyOf": [{"type": "integer"}, {"type": "string"}, {"$ref": "#"}]} for i in range(900)}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": properties}}}


class LargeSchemas(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.server = Server(1)
        cls.enterClassContext(cls.server)
        cls.fields = dict(prompt="It was", stop_token_ids=[560], temperature=1, seed=3)

    def tearDown(self):
        self.assertEqual(self.server.logged("the ranks are lost"), [])

    def test_many_choices_with_one_schema(self):
        answer = self.server.complete(**self.fields, max_tokens=2, n=240, response_format=large_schema())
        self.assertEqual(len(answer["choices"]), 240)
        for choice in answer["choices"]:
            self.assertIn(choice["text"].strip()[:1], ("{", ""))

    def test_clients_that_leave_them(self):
        body = json.dumps(self.fields | dict(max_tokens=100, n=240, response_format=large_schema(1))).encode()
        for _ in range(15):
            connection = self.server.connect()
            connection.request("POST", "/v1/completions", body)
            connection.close()
        self.assertEqual(len(self.server.complete(prompt="a", max_tokens=3)["choices"]), 1)

    def test_many_different_ones_at_once(self):
        alone = {n: self.server.text(**self.fields, max_tokens=5, response_format=large_schema(n)) for n in (7, ARGS.schemas // 2)}
        def ask(n):
            body = self.fields | dict(max_tokens=5, response_format=large_schema(n))
            while True:
                status, headers, answer = self.server.request("POST", "/v1/completions", body)
                if status != 503:
                    break
                self.assertEqual(headers["Retry-After"], "1")  # the queue is full, for now
                time.sleep(1)
            self.assertEqual(status, 200, answer)
            return json.loads(answer)["choices"][0]["text"]
        with self.server.stream(prompt="It was", max_tokens=3000, ignore_eos=True) as chunks, ThreadPoolExecutor(ARGS.schemas) as pool:
            next(chunks)
            texts = pool.map(ask, range(ARGS.schemas))
            for _ in range(20):
                next(chunks)
            self.assertEqual(self.server.request("GET", "/health")[0], 200)
            texts = list(texts)
        for n, text in alone.items():
            self.assertEqual(texts[n], text)

    def test_a_rank_that_dies_while_they_wait(self):
        expected = self.server.text(**self.fields, max_tokens=20, response_format=large_schema(1000))
        with Server(1) as server, ThreadPoolExecutor(20) as pool:
            texts = [pool.submit(server.text, **self.fields, max_tokens=20, response_format=large_schema(1000 + i))
                     for i in range(20)]
            wait_until(lambda: b'"in_flight":0' not in server.request("GET", "/live")[2], "requests in flight")
            os.kill(server.ranks()[0], signal.SIGKILL)
            self.assertEqual(texts[0].result(), expected)
            for text in texts:
                text.result()


class Names(unittest.TestCase):

    def test_a_folder_whose_name_is_no_text(self):
        with Server(1, model=folder_with(b"n\xff\xfe\"me", max_position_embeddings=256)) as server:
            names = []
            status, _, body = server.request("GET", "/v1/models")
            names.append(json.loads(body)["data"][0]["id"])
            for path, member in (("/live", "model"), ("/v1/completions", "model")):
                status, _, body = server.request(*(("GET", path) if path == "/live" else ("POST", path, {"prompt": "x", "model": names[0]})))
                self.assertEqual(status, 200)
                names.append(json.loads(body)[member])
            self.assertEqual(names, ["n\ufffd\ufffd\"me"] * 3)
            self.assertIn('model_name="n\ufffd\ufffd\\"me"', server.request("GET", "/metrics")[2].decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("foe")
    parser.add_argument("--schemas", type=int, default=300, help="different ones at once; 300: more than the queue holds")
    ARGS, rest = parser.parse_known_args()
    serve_test.ARGS.foe = str(Path(ARGS.foe).resolve())
    unittest.main(argv=sys.argv[:1] + rest)
