#!/usr/bin/env python3
"""Sends `foe serve` what hostile and broken clients send, while a well-behaved one asks and must get its right text.

    tests/server/attack_test.py build/foe

No test asserts how long something took. What would work for ever runs into the patience that all waiting has.
"""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

import serve_test
from serve_test import CONTEXT, SAMPLED, Server, wait_until

CONNECTIONS = 48  # the server's limit

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
DEEP = 200000


def setUpModule():
    serve_test.setUpModule()


def tearDownModule():
    serve_test.tearDownModule()


def nested(opening, closing, depth=DEEP):
    return opening * depth + "1" + closing * depth


# Fields that any generation refuses, whatever the rest is: JSON text.
BAD_FIELDS = [
    *[f'"{field}": {value}'
      for field in ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
      for value in ("NaN", "Infinity", "-Infinity", "1e999", "-1e308", '"1"', "[]", "{}", "true", "1" * 5000)],
    *[f'"{field}": {value}'
      for field in ("max_tokens", "n", "top_k", "seed", "min_tokens")
      for value in (*["-99"] * (field != "seed"), "1.5", "1e30", "99999999999999999999999", '"1"', "[1]", "{}", "true", "NaN")],
    '"max_tokens": 2147483647', '"max_tokens": 2147483648', '"n": 1000000000', '"n": 2147483648', '"n": 0',
    '"temperature": -0.1', '"top_p": 0', '"top_p": 1.1', '"min_p": 2', '"top_k": -2', '"repetition_penalty": 0',
    '"presence_penalty": 2.5', '"frequency_penalty": -2.5',
    '"stop": 1', '"stop": [1]', '"stop": {}', '"stop": ["' + "x" * 100000 + '"]', '"stop": ' + json.dumps(["x"] * 100000),
    '"stop": ' + nested("[", "]", 20), '"stop_token_ids": [-1]', '"stop_token_ids": [561]', '"stop_token_ids": ["x"]',
    '"stop_token_ids": [99999999999999999999]', '"stop_token_ids": ' + json.dumps([1] * 200000),
    '"logit_bias": []', '"logit_bias": {"x": 1}', '"logit_bias": {"-1": 1}', '"logit_bias": {"561": 1}',
    '"logit_bias": {"1": 101}', '"logit_bias": {"1": NaN}', '"logit_bias": {"99999999999999999999": 1}',
    '"logit_bias": {"1": "2"}', '"logit_bias": {' + ",".join(f'"{i}": 1' for i in range(200000)) + "}",
    '"logprobs": -5', '"logprobs": 1000000', '"stream": 1', '"stream": "yes"', '"stream_options": 1',
    '"response_format": 1', '"response_format": {"type": "nothing"}', '"response_format": {"type": 1}',
    '"ignore_eos": "x"', '"echo": "x"', '"x": ' + nested("[", "]"), '"x": ' + nested('{"a":', "}"),
    '"x": "\xff"', '"x": "\\ud800"', '"x": "\\u00"', '"x": "\0"', '"x": 01', '"x": +1', '"x": .5', '"x": 0x10', "x: 1",
    '"x": \'1\'', '"x": 1,', '"x": 1 /* comment */',
]


def pattern(text):
    return {"type": "string", "pattern": text}


def chain(links, link):
    """A schema of so many definitions, each made of the next one."""
    defs = {f"a{i}": link({"$ref": f"#/$defs/a{i + 1}"}) for i in range(links)}
    return {"$ref": "#/$defs/a0", "$defs": defs | {f"a{links}": {}}}


# Schemas that have no value, lead nowhere or outside, or would take for ever to work out.
BAD_SCHEMAS = [
    1, [], "x", False, {"type": "nothing"}, {"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"anyOf": [{"$ref": "#"}]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"required": ["a"], "properties": {"a": {"$ref": "#"}}}, {"minItems": 1, "items": {"$ref": "#"}},
    {"$ref": "http://127.0.0.1/x"}, {"$ref": "file:///etc/passwd"}, {"$ref": "#/../x"}, {"$ref": "#/" + "a/" * 5000},
    chain(200, lambda ref: ref), chain(40, lambda ref: {"allOf": [ref, ref]}),
    {"allOf": 20 * [{"anyOf": [{"minimum": i} for i in range(4)]}]}, {"anyOf": [{"const": i} for i in range(1000)]},
    {"oneOf": [{"const": "x" * 90 + str(i)} for i in range(1000)] + [{"type": "string"}]},
    {"enum": list(range(100000))}, {"enum": ["x" * 200000]}, {"properties": {f"p{i}": {} for i in range(1025)}},
    {"x" * 100000: 1}, {"$ref": f"#/$defs/{'x' * 9999}", "$defs": {"x" * 9999: 1}},
    {"minItems": -1}, {"minItems": 10**30}, {"maxLength": 0.5}, {"minLength": 2, "maxLength": 1}, {"minimum": 10**300},
    {"properties": {f"p{i}": {"type": "integer", "minimum": i} for i in range(900)}},
    {"prefixItems": [{}] * 30000}, {"required": [f"p{i}" for i in range(20000)]},
    *map(pattern, ["(", "(?=a)", "(a)\\1", "(" * 3000, "(" * 2000 + ")" * 2000, "a" * 5000, "a{99999}", "(a|b)*a(a|b){20}",
                   "((((a{100}){100}){100}){100})", "((){9999}){9999}", "(.*)*" * 500 + "x{1,9999}",
                   "^" + "(a?){99}" * 99 + "$", "(.{1,999}b){1,99}", "^.{2000}$"]),
]
# What is large, or calls for ever more, but can be worked out as the text grows.
HARD_SCHEMAS = [
    True, {}, {"items": {"$ref": "#"}}, {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"}]},
    {"additionalProperties": {"$ref": "#"}}, chain(20, lambda ref: {"anyOf": [ref, ref]}),
    {"enum": [f"v{i}" for i in range(9000)]}, {"enum": ["x" * 50000 + "a", "x" * 50000 + "b"]},
    {"properties": {f"p{i}": {"type": "integer", "minimum": i % 7} for i in range(900)}, "additionalProperties": False},
    {"minItems": 4000000000, "items": {"minLength": 1000000, "maxLength": 99999999999999999}},
    {"anyOf": [{"items": {"$ref": "#"}, "maxItems": i} for i in range(5, 9)]},
    *map(pattern, ["^(a+)+$", "^((a*)*)*b$", "(x+x+)+y", "^(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "^.{50}$"]),
]


def as_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


# Well-meant, but what its names hold is the client's.
CHAT_TEMPLATE = serve_test.CHAT_TEMPLATE + (
    "{% for i in range(times | default(0)) %}{{ text | default('') * (size | default(1)) }}{% endfor %}"
    "{% if pairs %}{% for a in messages %}{% for b in messages %}{{ a.content ~ b.content }}{% endfor %}{% endfor %}{% endif %}"
    "{% for tool in tools or [] %}{{ tool | tojson(indent=4) }}{% endfor %}")
# More fields beside a message of a few bytes.
BAD_TEMPLATE_FIELDS = [
    *[{"chat_template_kwargs": variables} for variables in (
        {"times": 10**9}, {"times": -(10**30)}, {"times": "x"}, {"times": [1]}, {"times": 1, "text": "x", "size": 10**18},
        {"times": 1, "text": [1] * 1000, "size": 10**15}, {"times": 100000, "text": "x" * 1000, "size": 1000},
        {"times": 100000, "text": " ", "size": 4000}, {"times": 1, "text": "x" * 3000000})],
    {"chat_template": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"},
    {"tools": [{"x": "y" * 1000}] * 1000}, {"tools": {}}, {"messages": [{"role": "user", "content": "x"}] * 5000},
    {"messages": [{"role": "user", "content": "x" * 500}] * 4000, "chat_template_kwargs": {"pairs": True}},
    {"messages": [{"role": "user", "content": " " * 3000000 + "x" + " " * 1000000 + "x"}]},
    {"messages": [{"role": "x" * 3000000, "content": ""}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 50000}]},
]

# Whole bodies, by endpoint.
BAD_BODIES = {
    COMPLETIONS: ["", " ", "{", "}", "null", "1", '"text"', "[]", "{}", "{}{}", nested("[", "]"), nested('{"prompt":', "}"),
                  "[" * DEEP, '{"prompt":' * DEEP, '{"prompt": "' + "x" * 100000, '{"prompt": 1}', '{"prompt": []}',
                  '{"prompt": [[]]}', '{"prompt": [[[1]]]}', '{"prompt": [1, "x"]}', '{"prompt": ["x", 1]}',
                  '{"prompt": [1.5]}', '{"prompt": [-1]}', '{"prompt": [561]}', '{"prompt": [1e99]}', '{"prompt": {}}',
                  json.dumps({"prompt": ["x"] * 100000}), json.dumps({"prompt": "x " * 500000}),
                  json.dumps({"prompt": [1] * 500000}), json.dumps({"prompt": [1] * CONTEXT}),
                  json.dumps({"prompt": ["x"] * 200, "n": 200})],
    CHAT: ["", "[]", "{}", '{"messages": 1}', '{"messages": []}', '{"messages": [1]}', '{"messages": [{}]}',
           '{"messages": [{"role": 1, "content": "x"}]}', '{"messages": [{"role": "user", "content": 1}]}',
           '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
           '{"messages": ' + nested("[", "]") + "}", '{"messages": [{"role": "tool", "content": "x"}]}'],
    "/tokenize": ["", "[]", "{}", '{"prompt": 1}', '{"prompt": "\xff"}', '{"prompt": "x", "add_special_tokens": 7}',
                  nested("[", "]"), '{"messages": 1}'],
    "/detokenize": ["", "[]", "{}", '{"tokens": 1}', '{"tokens": "x"}', '{"tokens": [-1]}', '{"tokens": [561]}',
                    '{"tokens": [1e99]}', '{"tokens": [[1]]}', '{"tokens": [NaN]}', nested("[", "]")],
}

GET = b"GET /v1/models HTTP/1.1\r\nHost: smuggled\r\n\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
ASK = b'{"prompt":"x","max_tokens":1}'
LENGTH = b"Content-Length: %d\r\n" % len(ASK)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BAD_HTTP = [
    # Two ways to say where the body ends, for two readers to disagree about.
    POST + LENGTH + CHUNKED + b"\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    POST + CHUNKED + LENGTH + b"\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    POST + LENGTH + b"Content-Length: 1\r\n\r\n" + ASK,
    POST + b"Content-Length: -1\r\n\r\n" + ASK,
    POST + b"Content-Length: +29\r\n\r\n" + ASK,
    POST + b"Content-Length: 0x1d\r\n\r\n" + ASK,
    POST + b"Content-Length: 29, 29, 30\r\n\r\n" + ASK,
    POST + b"Content-Length: 99999999999999999999999999\r\n\r\n" + ASK,
    POST + b"Content-Length: 29 29\r\n\r\n" + ASK,
    POST + b"Content-Length : 29\r\n\r\n" + ASK,
    # A coding that leaves it open where the body ends: what follows may be a part of it.
    *[POST + b"Transfer-Encoding: " + coding + b"\r\n" + length + b"\r\n" + GET
      for coding in (b"gzip", b"identity", b"", b"xchunked", b"chunkedx", b'"chunked"', b"chunked;q=1", b"chunked, gzip",
                     b"gzip, chunked", b"chunked, chunked", b"chunked\r\nTransfer-Encoding: identity", b"\x0bchunked")
      for length in (b"", b"Content-Length: 5\r\n")],
    # Chunks that are none.
    POST + CHUNKED + b"\r\nxyz\r\n" + ASK,
    POST + CHUNKED + b"\r\n-1\r\n" + ASK,
    POST + CHUNKED + b"\r\nfffffffffffffffff\r\n" + ASK,
    POST + CHUNKED + b"\r\n1d\r\n" + ASK + b"garbage\r\n0\r\n\r\n",
    POST + CHUNKED + b"\r\n1d;" + b"a" * 40000 + b"\r\n" + ASK,
    # Headers.
    POST + b"A" * 40000 + b": 1\r\n\r\n",
    POST + b"A: " + b"1" * 40000 + b"\r\n\r\n",
    POST + b"".join(b"A%d: 1\r\n" % i for i in range(20000)) + b"\r\n",
    POST + b"A\0B: 1\r\n\r\n",
    POST + b"A: 1\x012\r\n\r\n",
    POST + b": 1\r\n\r\n",
    POST + b"no colon\r\n\r\n",
    # First lines.
    b"\r\n\r\n\r\nnonsense\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1 more\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n",
    b"G\xff\xfe / HTTP/1.1\r\n\r\n", b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0" * 10,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"A" * 100000,
]


class WellBehaved:
    """Asks the same things again and again, and must get the same answers."""

    def __init__(self, server):
        self.server = server
        self.requests = [dict(prompt="It was", max_tokens=40), dict(prompt="a", max_tokens=40) | SAMPLED]
        self.expected = [server.text(**fields) for fields in self.requests]
        self.answers, self.wrong = 0, []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.ending.is_set():
            for fields, expected in zip(self.requests, self.expected):
                try:
                    for text in (self.server.text(**fields), self.server.streamed_text(**fields)):
                        if text != expected:
                            self.wrong.append(text)
                        self.answers += 1
                except Exception as error:
                    self.wrong.append(repr(error))
            time.sleep(0.05)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join(serve_test.PATIENCE_S)


class Attacks(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        template = serve_test.MODEL.parent / "template.jinja"
        template.write_text(CHAT_TEMPLATE)
        cls.server = Server(1, "--max-connections", CONNECTIONS, "--max-queue", 64, "--chat-template", template)
        cls.enterClassContext(cls.server)

    def setUp(self):
        # With room for it when others take all connections: it keeps none open, so it waits its turn in such a test.
        self.others = self.enterContext(WellBehaved(self.server))

    def tearDown(self):
        seen = self.others.answers
        wait_until(lambda: self.others.answers > seen + 1 or self.others.wrong, "an answer for the well-behaved")
        self.assertEqual(self.others.wrong, [])
        self.assertEqual(self.server.logged("the ranks are lost"), [])

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.server.port), serve_test.PATIENCE_S)

    def answer_to(self, data):
        """Sends these bytes. Returns all that comes back until the server closes, which it has to."""
        got = b""
        with self.connect() as client, contextlib.suppress(ConnectionError):
            with contextlib.suppress(ConnectionError):
                client.sendall(data)
            while piece := client.recv(1 << 16):
                got += piece
        return got

    def check_refused(self, path, body, statuses=(400,)):
        status, _, answer = self.server.request("POST", path, body)
        self.assertIn(status, statuses, f"{path} {str(body)[:80]} {answer[:200]!r}")
        error = json.loads(answer)["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertLess(len(answer), 4096, "an error repeats what it was sent")

    def test_bodies(self):
        for path, bodies in BAD_BODIES.items():
            for body in bodies:
                with self.subTest(path=path, body=body[:60]):
                    self.check_refused(path, body.encode("latin-1"))

    def test_fields(self):
        for path, rest in ((COMPLETIONS, '"prompt": "x"'), (CHAT, '"messages": [{"role": "user", "content": "x"}]')):
            for field in BAD_FIELDS:
                if path == CHAT and field.startswith(('"logprobs"', '"echo"')):
                    continue
                with self.subTest(path=path, field=field[:60]):
                    self.check_refused(path, ("{" + rest + ", " + field + "}").encode("latin-1"))

    def test_schemas(self):
        for schema in BAD_SCHEMAS:
            with self.subTest(schema=str(schema)[:80]):
                self.check_refused(COMPLETIONS, {"prompt": "x", "response_format": as_format(schema)})
        for schema in HARD_SCHEMAS:
            with self.subTest(schema=str(schema)[:80]):
                fields = dict(prompt="x", max_tokens=30, stop_token_ids=[560], response_format=as_format(schema)) | SAMPLED
                self.assertEqual(self.server.streamed_text(**fields), self.server.text(**fields))

    def test_templates(self):
        for fields in BAD_TEMPLATE_FIELDS:
            with self.subTest(fields=str(fields)[:80]):
                self.check_refused(CHAT, {"messages": [{"role": "user", "content": "x"}]} | fields)
        for text in ("{{ 7 * 7 }}", "{% for i in range(100000) %}x{% endfor %}", "{# x", "{% raw %}", "%}{{"):
            with self.subTest(text=text):  # messages are data
                got = self.server.chat(text)["choices"][0]["message"]["content"]
                self.assertEqual(got, self.server.text(prompt=f"user: {text}\nassistant:", max_tokens=20))

    def test_a_body_past_the_limit(self):
        for size in ((4 << 20) + 1, 16 << 20):
            self.check_refused(COMPLETIONS, b" " * size, (413,))
        got = self.answer_to(POST + b"Content-Length: 1000000000000\r\n\r\n")
        self.assertIn(b" 413 ", got[:20])

    def test_what_is_no_http(self):
        for data in BAD_HTTP:
            with self.subTest(data=data[:120]):
                got = self.answer_to(data)
                self.assertNotIn(b" 200 ", got[:20])
                self.assertLessEqual(got.count(b"HTTP/1.1 "), 1, "what followed was taken for a request")
                # Where we go on sending after the refusal, the system may drop it. It closes in any case.
                if got:
                    self.assertRegex(got[:14], rb"^HTTP/1.1 (400|413|431|501) ")

    def test_nothing_long_comes_back(self):
        end = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for data in (b"GET /" + b"\\" * 15000 + end, b"GET /" + b"\xff" * 15000 + end, b"A" * 15000 + b" /health" + end,
                     b"A" * 15000 + b" /" + end, b"GET http://x/" + b"a" * 15000 + end,
                     POST + b"Transfer-Encoding: " + b"\xff" * 15000 + b"\r\n\r\n",
                     POST[:-2] + b"\r\nOrigin: " + b"a" * 15000 + b"\r\n" + LENGTH + b"Connection: close\r\n\r\n" + ASK):
            with self.subTest(data=data[:40]):
                before = len(self.server.log)
                got = self.answer_to(data)
                self.assertRegex(got[:13], rb"^HTTP/1.1 \d\d\d ")
                self.assertLess(len(got), 4096)
                wait_until(lambda: self.others.answers or self.others.wrong, "an answer for the well-behaved")
                self.assertLess(max(map(len, self.server.log[before:]), default=0), 4096)

    def test_slow_clients_hold_nobody_up(self):
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(self.connect()) for _ in range(30)]
            for i, client in enumerate(slow):
                client.sendall(POST if i % 2 else POST + b"Content-Length: 100000\r\n\r\n")
            for _ in range(10):
                for i, client in enumerate(slow):
                    client.sendall(b"A: 1\r\n" if i % 2 else b" ")
                time.sleep(0.2)
            self.assertEqual(self.server.request("GET", "/health")[0], 200)

    def test_clients_that_do_not_read(self):
        body = json.dumps(dict(prompt="x", max_tokens=CONTEXT - 100, ignore_eos=True, stream=True, n=2)).encode()
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                client = stack.enter_context(self.connect())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            seen = self.others.answers
            wait_until(lambda: self.others.answers > seen + 8 or self.others.wrong, "answers for others")

    def test_long_answers(self):
        """A reply much longer than what the server holds for a client that does not read: to a fast one, a slow one."""
        prompts = [[(7 * i + j) % 500 for j in range(800)] for i in range(18)]
        body = json.dumps(dict(prompt=prompts, max_tokens=1, echo=True, logprobs=20)).encode()
        request = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        def ask(receive_buffer, pause_s):
            got = []
            with self.connect() as client:
                if receive_buffer:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                client.sendall(request)
                while piece := client.recv(1 << 16):
                    got.append(piece)
                    time.sleep(pause_s)
            head, _, answer = b"".join(got).partition(b"\r\n\r\n")
            self.assertEqual(len(answer), int(re.search(rb"Content-Length: (\d+)", head).group(1)))
            self.assertGreater(len(answer), 8 << 20)
            return json.loads(answer)["choices"]
        choices = ask(0, 0)
        self.assertEqual(len(choices), len(prompts))
        self.assertEqual(ask(1 << 16, 0.01), choices)
        one = self.server.complete(prompt=prompts[7], max_tokens=1, echo=True, logprobs=20)["choices"][0]
        self.assertEqual(choices[7], one | {"index": 7})
        # As a stream too: one piece has a whole prompt.
        with self.server.stream(prompt=prompts, max_tokens=1, echo=True, logprobs=20) as chunks:
            pieces = {}
            for chunk in chunks:
                choice = chunk["choices"][0]
                pieces.setdefault(choice["index"], []).append(choice)
        for choice in choices:
            mine = pieces[choice["index"]]
            self.assertEqual("".join(piece["text"] for piece in mine), choice["text"])
            self.assertEqual(sum((piece["logprobs"]["tokens"] for piece in mine), []), choice["logprobs"]["tokens"])

    def test_pipelined_requests(self):
        one = POST + LENGTH + b"\r\n" + ASK
        got = self.answer_to(one * 50 + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        self.assertEqual(got.count(b"HTTP/1.1 200 "), 51)
        # More than anybody reads: each has to wait for the one before.
        with self.connect() as client:
            client.settimeout(2)
            with contextlib.suppress(TimeoutError, ConnectionError):
                client.sendall(one * 200000)
            self.assertEqual(self.server.request("GET", "/health")[0], 200)

    def test_a_flood_of_probes(self):
        for _ in range(2 * CONNECTIONS):
            self.assertEqual(self.server.request("GET", "/health_generate")[0], 200)

    def test_bytes_at_random(self):
        for size in (1, 10, 1000, 100000):
            self.answer_to(random.Random(size).randbytes(size) + b"\r\n\r\n")


class Keys(unittest.TestCase):

    def test_who_has_none_is_refused_before_the_body_comes(self):
        with Server(1, "--api-key", "secret") as server:
            address = ("127.0.0.1", server.port)
            clients = [socket.create_connection(address, serve_test.PATIENCE_S) for _ in range(100)]
            for client in clients:
                client.sendall(POST + b"Content-Length: 4000000\r\n\r\n" + b" " * 1000)
            for client in clients:
                with client:
                    self.assertTrue(client.recv(1 << 16).startswith(b"HTTP/1.1 401 "))
            headers = {"Authorization": "bearer  secret"}
            self.assertEqual(server.request("POST", COMPLETIONS, {"prompt": "x"}, headers)[0], 200)

    def test_an_empty_one_does_not_open_the_server(self):
        command = [serve_test.ARGS.foe, "serve", str(serve_test.MODEL), "--ranks", "1", "--port", "0"]
        for flags, variable in ((["--api-key", ""], None), (["--api-key", "good", "--api-key", ""], None), (["--api-key="], None),
                                ([], "")):
            with self.subTest(flags=flags):
                environment = os.environ | ({} if variable is None else {"FOE_API_KEY": variable})
                run = subprocess.run(command + flags, env=environment, capture_output=True, text=True, timeout=serve_test.PATIENCE_S)
                self.assertNotEqual(run.returncode, 0)
                self.assertIn("--api-key", run.stderr)


class ConnectionFlood(unittest.TestCase):

    def test_the_limit_holds_and_ends(self):
        with Server(1, "--max-connections", CONNECTIONS) as server:
            expected = server.text(prompt="It was", max_tokens=40)
            with server.stream(prompt="It was", max_tokens=2000, ignore_eos=True) as chunks:
                next(chunks)
                with contextlib.ExitStack() as stack:
                    address = ("127.0.0.1", server.port)
                    for _ in range(4 * CONNECTIONS):
                        stack.enter_context(socket.create_connection(address, serve_test.PATIENCE_S))
                    statuses = set()
                    for _ in range(5):
                        with contextlib.suppress(OSError, serve_test.http.client.HTTPException):
                            statuses.add(server.request("GET", "/health")[0])
                    self.assertLessEqual(statuses, {503})
                    files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
                    self.assertLess(files, CONNECTIONS + 64 + 40)
                    next(chunks)  # who was there is served
                def answers():
                    with contextlib.suppress(OSError, serve_test.http.client.HTTPException):
                        return server.request("GET", "/health")[0] == 200
                wait_until(answers, "a place")
                self.assertEqual(server.text(prompt="It was", max_tokens=40), expected)


if __name__ == "__main__":
    serve_test.ARGS.foe = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
