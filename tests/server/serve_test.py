#!/usr/bin/env python3
"""Talks to `foe serve` as its clients do, and does to it what can happen to a server.

    tests/server/serve_test.py build/foe               # on one rank and on two
    tests/server/serve_test.py build/foe --ranks 1     # without mpirun
    tests/server/serve_test.py build/foe -k killed     # other arguments are unittest's

The model is a random federated one, so its text is nonsense, but the same nonsense on any number of ranks, alone or in a
batch, in one piece or streamed, and whatever dies meanwhile. That is what most of the tests assert. Waiting has limits,
but no test asserts that something was fast.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "oracle"))
from random_model import write_random_model, make_config  # noqa: E402

ARGS = argparse.Namespace(foe=None, ranks=[1, 2])
PATIENCE_S = 120  # for what must come: generous, as it only ends a test that fails
CONTEXT = 4096
MODEL = None  # the folder, made once
CHAT_TEMPLATE = ("{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
                 "{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
                 "{% if add_generation_prompt %}assistant:{{ opening }}{% endif %}"
                 "{# calls are as in <tool_call>{...}</tool_call>, reasoning is as in <think>...</think> #}")


def setUpModule():
    global MODEL
    MODEL = Path(tempfile.mkdtemp(prefix="foe-serve-test-")) / "tiny"
    config = make_config(hidden_size=128, num_hidden_layers=4, vocab_size=561, max_position_embeddings=CONTEXT,
                         residual="federated", expert_groups=4, group_sync="sum")
    write_random_model(MODEL, config, seed=5)
    shutil.copy(TESTS / "golden/tokenizer/gpt2.json", MODEL / "tokenizer.json")
    (MODEL / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))


def tearDownModule():
    shutil.rmtree(MODEL.parent)


# --- processes ---


def parents():
    """Returns pid -> parent of all processes."""
    result = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if fields[0] != "Z":
                result[int(folder.name)] = int(fields[1])
    return result


def descendants(pid):
    children = parents()
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        direct = [child for child, its_parent in children.items() if its_parent == parent]
        found += direct
        todo += direct
    return found


def command_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def rank_of(pid):
    with contextlib.suppress(OSError):
        for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if item.startswith(b"OMPI_COMM_WORLD_RANK="):
                return int(item.split(b"=")[1])
    return 0


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.02)


class Server:
    """`foe serve` with the test's model."""

    def __init__(self, ranks, *flags, model=None):
        command = [ARGS.foe, "serve", str(model or MODEL), *(["--ranks", str(ranks)] if ranks else []), "--port", "0",
                   "--threads", "1", *map(str, flags)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="backslashreplace")
        self.log = []
        self.seen = set()  # every process that was ever found below it
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def logged(self, text):
        return [line for line in list(self.log) if text in line]

    def wait_ready(self):
        def listening():
            if self.process.poll() is not None:
                raise AssertionError("the server ended:\n" + "".join(self.log))
            return self.logged("listening on http://")
        wait_until(listening, "listening")
        self.port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", "".join(self.log)).group(1))
        return self

    def ranks(self):
        """Returns the pids of the ranks, in order."""
        self.seen.update(descendants(self.process.pid))
        workers = [pid for pid in descendants(self.process.pid)
                   if b"worker" in command_of(pid) and not command_of(pid)[0].endswith(b"mpirun")]
        return sorted(workers, key=rank_of)

    def end(self, sig=signal.SIGTERM):
        """Returns the exit status. Nothing may be left."""
        self.ranks()
        self.process.send_signal(sig)
        status = self.process.wait(PATIENCE_S)
        self.reader.join(PATIENCE_S)
        left = self.seen & set(parents())
        if sig != signal.SIGKILL and left:
            raise AssertionError(f"left behind: {[command_of(pid) for pid in left]}")
        return status

    def __enter__(self):
        return self.wait_ready()

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.end()
        if kind:
            print("".join(self.log[-30:]), file=sys.stderr)
        self.process.stderr.close()

    # --- requests ---

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def request(self, method, path, body=None, headers={}):
        """Returns status, headers and body."""
        connection = self.connect()
        try:
            connection.request(method, path, body if isinstance(body, (bytes, str, type(None))) else json.dumps(body),
                               headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def complete(self, path="/v1/completions", **fields):
        status, _, body = self.request("POST", path, fields)
        answer = json.loads(body)
        if status != 200:
            raise AssertionError(f"{status}: {answer}")
        return answer

    def text(self, **fields):
        return self.complete(**fields)["choices"][0]["text"]

    def chat(self, content, **fields):
        return self.complete("/v1/chat/completions", messages=[{"role": "user", "content": content}],
                             **{"max_tokens": 20} | fields)

    @contextlib.contextmanager
    def stream(self, path="/v1/completions", **fields):
        """Gives an iterator over the chunks of a stream, up to [DONE]."""
        connection = self.connect()
        try:
            connection.request("POST", path, json.dumps(fields | {"stream": True}))
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"{response.status}: {response.read()}")
            yield chunks_of(response)
        finally:
            connection.close()

    def tokens(self, text):
        return json.loads(self.request("POST", "/tokenize", {"prompt": text})[2])["tokens"]

    def streamed_text(self, **fields):
        with self.stream(**fields) as chunks:
            return "".join(chunk["choices"][0]["text"] for chunk in chunks)


def chunks_of(response):
    while line := response.readline():
        if line == b"\n" or line.startswith(b":"):  # a comment
            continue
        assert line.startswith(b"data: "), line
        data = line[len(b"data: "):].strip()
        if data == b"[DONE]":
            assert response.readline() == b"\n" and response.read() == b"", "something after [DONE]"
            return
        yield json.loads(data)
    raise AssertionError("the stream ended without [DONE]")


PROMPTS = ["The quick brown fox", "It was", "naïve café", "日本語", "def f(x):\n    return x", "1 2 3 4", "a", "Anne had " * 30]
SAMPLED = dict(temperature=0.8, top_p=0.95, top_k=50, min_p=0.01, seed=7)


# --- one server that all tests of the API use ---


class Api:
    ranks = None

    @classmethod
    def setUpClass(cls):
        if cls.ranks not in ARGS.ranks:
            raise unittest.SkipTest(f"not asked for {cls.ranks} ranks")
        cls.server = Server(cls.ranks)
        cls.enterClassContext(cls.server)

    def test_models_and_health(self):
        status, _, body = self.server.request("GET", "/v1/models")
        self.assertEqual(status, 200)
        self.assertEqual([model["id"] for model in json.loads(body)["data"]], ["tiny"])
        self.assertEqual(json.loads(self.server.request("GET", "/v1/models/tiny")[2])["max_model_len"],
                         json.loads(body)["data"][0]["max_model_len"])
        self.assertEqual(self.server.request("GET", "/v1/models/other")[0], 404)
        self.assertEqual(self.server.request("GET", "/health")[0], 200)
        self.assertEqual(self.server.request("GET", "/ping")[0], 200)
        self.assertRegex(json.loads(self.server.request("GET", "/version")[2])["version"], r"^\d")
        self.assertEqual(json.loads(self.server.request("GET", "/load")[2]), {"server_load": 0})
        self.assertIn("tokenizer_class", json.loads(self.server.request("GET", "/tokenizer_info")[2]))
        self.assertEqual(len(self.server.ranks()), self.ranks)

    def test_metrics_do_not_lag(self):
        self.server.complete(prompt="hello there", max_tokens=3)
        text = self.server.request("GET", "/metrics")[2].decode()
        steps = re.search(r'foe:iteration_tokens_total_count\{[^}]*\} (\d+)', text)
        self.assertGreaterEqual(int(steps[1]), 3)  # of this request alone, which has just ended
        self.assertRegex(text, r'foe:generation_tokens_total\{[^}]*\} [1-9]')
        self.assertRegex(text, r'foe:comm_bytes_total\{collective="sum",[^}]*\} ')

    def test_a_grammar_holds(self):
        text = self.server.text(prompt="a sum: ", max_tokens=40, stop_token_ids=[0], structured_outputs={
            "grammar": 'root ::= term ("+" term){2}\nterm ::= [0-9]{1,2} | "(" root ")"'})
        self.assertRegex(text, r"^[0-9+()]+$")

    def test_logprobs_of_the_prompt(self):
        choice = self.server.complete(prompt="hello there", max_tokens=1, prompt_logprobs=2)["choices"][0]
        places = choice["prompt_logprobs"]
        self.assertIsNone(places[0])
        for place in places[1:]:
            ranks = sorted(named["rank"] for named in place.values())
            self.assertEqual(ranks[:2], [1, 2])
            self.assertTrue(all(named["logprob"] <= 0 for named in place.values()))

    def test_a_chat_may_begin_with_the_message_that_goes_on(self):
        asked = dict(messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "It was"}], max_tokens=10,
                     continue_final_message=True)
        path = "/v1/chat/completions"
        text = self.server.complete(path, **asked)["choices"][0]["message"]["content"]
        echo = self.server.complete(path, echo=True, **asked)["choices"][0]["message"]["content"]
        self.assertEqual(echo, "It was" + text)
        with self.server.stream(path, echo=True, **asked) as chunks:
            self.assertEqual("".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks), echo)

    def test_an_answer_has_openais_fields(self):
        answer = self.server.complete(model="tiny", prompt="hello there", max_tokens=5)
        self.assertTrue(answer["id"].startswith("cmpl-"))
        self.assertEqual((answer["object"], answer["model"]), ("text_completion", "tiny"))
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 5)
        self.assertEqual(answer["usage"]["total_tokens"], answer["usage"]["prompt_tokens"] + 5)

    def test_greedy_text_is_that_of_generate(self):
        for prompt in PROMPTS:
            out = subprocess.run([ARGS.foe, "generate", str(MODEL), "--prompt", prompt, "--max-tokens", "40",
                                  "--threads", "1", "--json"],
                                 capture_output=True, check=True, timeout=PATIENCE_S)
            text = self.server.text(prompt=prompt, max_tokens=40, skip_special_tokens=False)
            self.assertEqual(text, json.loads(out.stdout)["text"])

    def test_stream_is_the_whole_in_pieces(self):
        for prompt in PROMPTS:
            for sampling in ({}, SAMPLED):
                fields = dict(prompt=prompt, max_tokens=60) | sampling
                self.assertEqual(self.server.streamed_text(**fields), self.server.text(**fields))

    def test_together_is_as_alone(self):
        requests = [dict(prompt=prompt, max_tokens=80) | (SAMPLED if i % 2 else {}) for i, prompt in enumerate(PROMPTS)]
        alone = [self.server.text(**fields) for fields in requests]
        with ThreadPoolExecutor(len(requests)) as pool:
            self.assertEqual(list(pool.map(lambda fields: self.server.text(**fields), requests)), alone)
            self.assertEqual(list(pool.map(lambda fields: self.server.streamed_text(**fields), requests)), alone)

    def test_a_list_of_prompts_is_as_each_alone(self):
        fields = dict(max_tokens=20) | SAMPLED
        answer = self.server.complete(prompt=PROMPTS, **fields)
        self.assertEqual([choice["index"] for choice in answer["choices"]], list(range(len(PROMPTS))))
        self.assertEqual([choice["text"] for choice in answer["choices"]],
                         [self.server.text(prompt=prompt, **fields) for prompt in PROMPTS])
        texts = [""] * len(PROMPTS)
        with self.server.stream(prompt=PROMPTS, **fields) as chunks:
            for chunk in chunks:
                texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
        self.assertEqual(texts, [choice["text"] for choice in answer["choices"]])
        ids = self.server.complete(prompt=[[1, 2, 3], [4]], **fields)
        self.assertEqual(ids["choices"][1]["text"], self.server.text(prompt=[4], **fields))

    def test_the_seed_decides(self):
        fields = dict(prompt="It was", max_tokens=60, temperature=1)
        first = self.server.text(seed=1, **fields)
        self.assertEqual(self.server.text(seed=1, **fields), first)
        self.assertNotEqual(self.server.text(seed=2, **fields), first)
        self.assertNotEqual(self.server.text(**fields), self.server.text(**fields))

    def test_stop_strings(self):
        whole = self.server.text(prompt="It was", max_tokens=100)
        stop = whole[20:24]
        for answer in (self.server.complete(prompt="It was", max_tokens=100, stop=stop)["choices"][0],
                       self.server.complete(prompt="It was", max_tokens=100, stop=["never ever", stop])["choices"][0]):
            self.assertEqual(answer["text"], whole[:whole.index(stop)])
            self.assertEqual(answer["finish_reason"], "stop")
        self.assertEqual(self.server.streamed_text(prompt="It was", max_tokens=100, stop=stop),
                         whole[:whole.index(stop)])

    def test_usage_of_a_stream(self):
        with self.server.stream(prompt="It was", max_tokens=7, stream_options={"include_usage": True}) as chunks:
            *texts, last = chunks
        self.assertEqual(texts[-1]["choices"][0]["finish_reason"], "length")
        self.assertTrue(all(chunk["usage"] is None for chunk in texts))
        self.assertEqual(last["choices"], [])
        self.assertEqual(last["usage"]["completion_tokens"], 7)

    def test_bad_requests(self):
        for body, status in [(b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b'"text"', 400), (b"[" * 100000, 400),
                             (b'{"prompt": "\xff"}', 400), (b'{"prompt": "x", "max_tokens": 1e99}', 400),
                             (b'{"prompt": "x", "max_tokens": -5}', 400), (b'{"prompt": "x", "temperature": NaN}', 400),
                             (b'{"prompt": [561]}', 400), (b'{"prompt": [-1]}', 400),
                             (b'{"prompt": "x", "max_tokens": 4096}', 400), (b'{"prompt": "x", "n": 0}', 400),
                             (b'{"prompt": "x", "logit_bias": {"x": 1}}', 400),
                             (b'{"prompt": "x", "model": "other"}', 404), (b" " * (5 << 20), 413)]:
            got, _, answer = self.server.request("POST", "/v1/completions", body)
            self.assertEqual(got, status, body[:60])
            error = json.loads(answer)["error"]
            self.assertEqual(error["code"], status)
            self.assertEqual(set(error), {"message", "type", "param", "code"})
        for method, path, status in [("GET", "/nowhere", 404), ("GET", "/v1/completions", 405),
                                     ("DELETE", "/health", 405), ("POST", "/v1/models", 405)]:
            self.assertEqual(self.server.request(method, path)[0], status)
        self.server.text(prompt="still there?", max_tokens=1)

    def test_a_chat_is_its_template_completed(self):
        text = self.server.text(prompt="user: hi there\nassistant:", max_tokens=20)
        answer = self.server.chat("  hi there ")
        self.assertTrue(answer["id"].startswith("chatcmpl-"))
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["choices"][0]["message"],
                         {"role": "assistant", "content": text, "reasoning_content": None, "reasoning": None})
        messages = [{"role": "user", "content": "hi there"}]
        with self.server.stream("/v1/chat/completions", messages=messages, max_tokens=20) as chunks:
            first, *rest = [chunk["choices"][0] for chunk in chunks]
        self.assertEqual(first["delta"], {"role": "assistant", "content": ""})
        self.assertEqual("".join(choice["delta"].get("content", "") for choice in rest), text)
        self.assertEqual(rest[-1]["finish_reason"], "length")
        status, _, body = self.server.request("POST", "/v1/chat/completions",
                                              {"messages": [{"role": "tool", "content": "x"}]})
        self.assertEqual(status, 400)
        self.assertIn("no tools here", json.loads(body)["error"]["message"])

    def test_choices_are_as_each_alone(self):
        fields = dict(prompt="It was", max_tokens=30) | SAMPLED
        answer = self.server.complete(n=3, **fields)
        texts = [choice["text"] for choice in answer["choices"]]
        self.assertEqual(texts[0], self.server.text(**fields))
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual([choice["text"] for choice in self.server.complete(n=3, **fields)["choices"]], texts)
        self.assertEqual(answer["usage"]["completion_tokens"], 90)

    def test_logprobs(self):
        fields = dict(prompt="It was the best of", max_tokens=12, logprobs=3)
        alone = self.server.complete(**fields)["choices"][0]
        reports = alone["logprobs"]
        self.assertEqual(len(reports["tokens"]), 12)
        for logprob, top in zip(reports["token_logprobs"], reports["top_logprobs"]):
            self.assertEqual(logprob, max(top.values()))  # greedy
            self.assertGreaterEqual(len(top), 2)  # of three tokens some may have the same text
        with ThreadPoolExecutor(4) as pool:  # among others, the same floats
            for other in pool.map(lambda _: self.server.complete(**fields), range(4)):
                self.assertEqual(other["choices"][0], alone)
        echo = self.server.complete(echo=True, **fields)["choices"][0]
        self.assertEqual(echo["text"], fields["prompt"] + alone["text"])
        self.assertIsNone(echo["logprobs"]["token_logprobs"][0])
        self.assertEqual(echo["logprobs"]["token_logprobs"][-12:], reports["token_logprobs"])
        asked = self.server.complete(**fields | dict(logprobs=0, logprob_token_ids=[300, 301],
                                                     return_tokens_as_token_ids=True))["choices"][0]["logprobs"]
        self.assertEqual(asked["token_logprobs"], reports["token_logprobs"])
        for token, top in zip(asked["tokens"], asked["top_logprobs"]):
            self.assertEqual(set(top), {"token_id:300", "token_id:301", token})
        # As lm-evaluation-harness asks for the likelihood of a text it has.
        ids = self.server.tokens(fields["prompt"])
        scored = self.server.complete(prompt=ids, max_tokens=1, logprobs=1, echo=True, temperature=0)["choices"][0]
        self.assertEqual(scored["logprobs"]["token_logprobs"][:len(ids)], echo["logprobs"]["token_logprobs"][:len(ids)])

    def test_sampling_fields_change_the_text(self):
        fields = dict(prompt="It was", max_tokens=40)
        plain = self.server.text(**fields)
        for change in (dict(presence_penalty=2), dict(frequency_penalty=2), dict(repetition_penalty=2),
                       dict(logit_bias={"77": 100})):
            with self.subTest(**change):
                changed = self.server.text(**fields, **change)
                self.assertNotEqual(changed, plain)
                self.assertEqual(self.server.text(**fields, **change), changed)
                self.assertEqual(self.server.streamed_text(**fields, **change), changed)

    def test_tokenize_and_back(self):
        for text in PROMPTS:
            ids = self.server.tokens(text)
            status, _, body = self.server.request("POST", "/detokenize", {"tokens": ids})
            self.assertEqual((status, json.loads(body)["prompt"]), (200, text))

    def test_health_generate_crosses_all_ranks(self):
        self.assertEqual(self.server.request("GET", "/health_generate")[0], 200)

    def test_head_is_get_without_the_body(self):
        for path in ("/health", "/v1/models", "/"):
            status, headers, body = self.server.request("HEAD", path)
            self.assertEqual((status, body), (200, b""))
            self.assertEqual(int(headers["Content-Length"]), len(self.server.request("GET", path)[2]))
        self.assertEqual(self.server.request("HEAD", "/v1/completions")[0], 405)

    def test_every_answer_has_a_request_id(self):
        for method, path, body in [("GET", "/health", None), ("GET", "/nowhere", None),
                                   ("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1})]:
            _, headers, _ = self.server.request(method, path, body)
            self.assertRegex(headers["X-Request-Id"], "^[0-9a-f]{32}$")
            _, headers, _ = self.server.request(method, path, body, {"X-Request-Id": "mine-1"})
            self.assertEqual(headers["X-Request-Id"], "mine-1")
        wait_until(lambda: self.server.logged("cmpl-mine-1"), "the id in the log")

    def test_bytes_that_are_no_http(self):
        for bytes_sent in (b"\x16\x03\x01" + os.urandom(64), b"GET / HTTP/9.9\r\n\r\n", b"A" * 40000):
            with socket.create_connection(("127.0.0.1", self.server.port), PATIENCE_S) as client:
                with contextlib.suppress(ConnectionError):
                    client.sendall(bytes_sent + b"\r\n\r\n")
                    self.assertIn(client.recv(100).split(b" ")[1], (b"400", b"431"))
        self.assertEqual(self.server.request("GET", "/health")[0], 200)

    def test_the_openai_client(self):
        import openai  # of tools/requirements-test.txt; nothing else here needs more than random_model.py does
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.server.port}/v1", api_key="none", max_retries=0)
        self.assertEqual([model.id for model in client.models.list()], ["tiny"])
        whole = client.completions.create(model="tiny", prompt="It was", max_tokens=20)
        self.assertEqual(whole.choices[0].text, self.server.text(prompt="It was", max_tokens=20))
        self.assertEqual(whole.usage.completion_tokens, 20)
        stream = client.completions.create(model="tiny", prompt="It was", max_tokens=20, stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in stream), whole.choices[0].text)
        messages = [{"role": "user", "content": "hi there"}]
        chat = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, logprobs=True,
                                              top_logprobs=2)
        self.assertEqual(chat.choices[0].message.content, self.server.chat("hi there")["choices"][0]["message"]["content"])
        self.assertEqual(len(chat.choices[0].logprobs.content), 20)
        self.assertEqual(len(chat.choices[0].logprobs.content[0].top_logprobs), 2)
        stream = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, stream=True,
                                                stream_options={"include_usage": True})
        *chunks, last = stream
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks),
                         chat.choices[0].message.content)
        self.assertEqual(last.usage.completion_tokens, 20)
        with self.assertRaises(openai.BadRequestError):
            client.completions.create(model="tiny", prompt="x", max_tokens=20, temperature=-1)
        with self.assertRaises(openai.NotFoundError):
            client.completions.create(model="other", prompt="x")

    def test_calls_of_tools(self):
        import jsonschema
        schemas = {
            "weather": {"type": "object", "required": ["city", "unit"], "properties": {
                "city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["C", "F"]},
                "days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "maxItems": 2}},
                "$defs": {"day": {"type": "integer", "minimum": 1, "maximum": 7}}},
            "now": {"type": "object", "properties": {}},
        }
        tools = [{"type": "function", "function": {"name": name, "parameters": schema}}
                 for name, schema in schemas.items()]
        named = {"type": "function", "function": {"name": "weather"}}
        fields = dict(tools=tools, n=2, max_tokens=200, temperature=1, stop_token_ids=[0], parallel_tool_calls=False)
        cut = 0
        for seed in range(2):
            for choice in ("required", named):
                asked = fields | dict(tool_choice=choice, seed=seed)
                whole = self.server.chat("hi", **asked)["choices"]
                joined = [{"calls": []} for _ in whole]
                with self.server.stream("/v1/chat/completions", messages=[{"role": "user", "content": "hi"}],
                                        **asked) as chunks:
                    for chunk in chunks:
                        piece, = chunk["choices"]
                        calls = joined[piece["index"]]["calls"]
                        for call in piece["delta"].get("tool_calls", []):
                            if "id" in call:
                                calls.append([call["function"]["name"], ""])
                            self.assertEqual(call["index"], len(calls) - 1)
                            calls[-1][1] += call["function"]["arguments"]
                        joined[piece["index"]]["finish"] = piece["finish_reason"]
                for answer, pieces in zip(whole, joined, strict=True):
                    calls = [call["function"] for call in answer["message"]["tool_calls"]]
                    self.assertEqual([[call["name"], call["arguments"]] for call in calls], pieces["calls"])
                    self.assertEqual(answer["finish_reason"], pieces["finish"])
                    if answer["finish_reason"] == "length":
                        cut += 1
                        continue
                    self.assertEqual(answer["finish_reason"], "stop" if choice == named else "tool_calls")
                    call, = calls
                    jsonschema.validate(json.loads(call["arguments"]), schemas[call["name"]])
                    self.assertTrue(choice == "required" or call["name"] == "weather")
        self.assertLess(cut, 4)

    def test_calls_that_the_model_decides_on(self):
        import openai
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.server.port}/v1", api_key="none", max_retries=0)
        call = '<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call>"}}\n</tool_call>'
        for text, content, arguments in [(f"Well.\n{call}\n{call}", "Well.", ['{"a": "</tool_call>"}'] * 2),
                                         (call[:-12], None, ['{"a": "</tool_call>"}']),
                                         (call.replace('"f"', '"g"'), call.replace('"f"', '"g"'), [])]:
            # A rule for the text stands for what a model has learnt to write.
            asked = dict(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=200,
                         tools=[{"type": "function", "function": {"name": "f", "strict": True,
                                                                    "parameters": {"type": "object"}}}],
                         extra_body={"structured_outputs": {"choice": [text]}, "stop_token_ids": [0]})
            whole = client.chat.completions.create(**asked).choices[0]
            with client.chat.completions.stream(**asked) as stream:
                streamed = stream.get_final_completion().choices[0]
            for choice in (whole, streamed):
                self.assertEqual(choice.message.content or None, content)
                self.assertEqual([call.function.arguments for call in choice.message.tool_calls or []], arguments)
                self.assertEqual(choice.finish_reason, "tool_calls" if arguments else "stop")

    def test_reasoning(self):
        import openai
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.server.port}/v1", api_key="none", max_retries=0)
        call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
        asked = dict(model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=200, n=2,
                     tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])
        # A rule for the text stands for what a model has learnt to write.
        rule = {"structured_outputs": {"choice": [f"<think>\nWell. {call}\n</think>\n\nSo.\n{call}"]}, "stop_token_ids": [0]}
        for extra, reasoning in ((rule, f"Well. {call}"), (rule | {"include_reasoning": False}, None)):
            whole = client.chat.completions.create(**asked, extra_body=extra)
            with client.chat.completions.stream(**asked, extra_body=extra,
                                                stream_options={"include_usage": True}) as stream:
                parts = {}
                for event in stream:
                    if event.type == "chunk" and event.chunk.choices:
                        piece, = event.chunk.choices
                        parts.setdefault(piece.index, []).append(getattr(piece.delta, "reasoning_content", ""))
                streamed = stream.get_final_completion()
            for i, choice in enumerate(whole.choices):
                self.assertEqual(getattr(choice.message, "reasoning_content", None), reasoning)
                self.assertEqual("".join(parts[i]), reasoning or "")
            for answer in (whole, streamed):
                for choice in answer.choices:
                    self.assertEqual((choice.message.content, choice.finish_reason), ("So.", "tool_calls"))
                    self.assertEqual([call.function.name for call in choice.message.tool_calls], ["f"])
                tokens = answer.usage.completion_tokens_details.reasoning_tokens
                self.assertEqual(tokens, whole.usage.completion_tokens_details.reasoning_tokens)
                self.assertTrue(0 < tokens < answer.usage.completion_tokens, answer.usage)
        # A prompt that begins the reasoning, which max_tokens cuts.
        cut = self.server.chat("hi", max_tokens=5, chat_template_kwargs={"opening": "<think>\n"})
        choice, = cut["choices"]
        self.assertEqual(choice["message"]["reasoning_content"],
                         self.server.text(prompt="user: hi\nassistant:<think>\n", max_tokens=5).lstrip(" \t\r\n"))
        self.assertEqual((choice["message"]["content"] or "", choice["finish_reason"]), ("", "length"))
        self.assertEqual(cut["usage"]["completion_tokens_details"]["reasoning_tokens"], 5)

    def test_an_idle_server_costs_nothing(self):
        self.server.text(prompt="warm", max_tokens=1)
        processes = [self.server.process.pid, *self.server.ranks()]
        time.sleep(1)  # let everything fall asleep
        before = {pid: cpu_seconds(pid) for pid in processes}
        time.sleep(4)
        for pid in processes:
            self.assertLess(cpu_seconds(pid) - before[pid], 0.2, command_of(pid)[:3])


class ApiOnOneRank(Api, unittest.TestCase):
    ranks = 1


class ApiOnTwoRanks(Api, unittest.TestCase):
    ranks = 2


# --- servers to which things happen ---


def every_rank_count(test):
    def run(self):
        for ranks in ARGS.ranks:
            with self.subTest(ranks=ranks):
                test(self, ranks)
    return run


def one_rank(test):
    """The number of ranks makes no difference to this one."""
    def run(self):
        if 1 not in ARGS.ranks:
            self.skipTest("runs with one rank")
        test(self)
    return run


LONG = dict(prompt="Once upon a time", max_tokens=250)


class Processors(unittest.TestCase):

    def setUp(self):
        if 2 not in ARGS.ranks:
            self.skipTest("runs with two ranks")

    def test_each_numa_node_has_a_rank(self):
        for nodes in (1, 2, 3):
            machine = {"HWLOC_SYNTHETIC": f"pack:{nodes} [numa] core:1 pu:1"}
            with self.subTest(nodes=nodes), mock.patch.dict(os.environ, machine), Server(None) as server:
                self.assertEqual(len(server.ranks()), nodes)

    def test_pinned_ranks_have_processors_of_their_own(self):
        with Server(2, "--pin") as server:
            text = server.text(**LONG)
            processors = [os.sched_getaffinity(rank) for rank in server.ranks()]
            self.assertEqual([len(of_rank) for of_rank in processors], [1, 1])
            self.assertEqual(len(set.union(*processors)), min(2, len(os.sched_getaffinity(0))))
        with Server(2) as server:
            self.assertEqual(server.text(**LONG), text)


class Trouble(unittest.TestCase):

    def check_pauses(self, server, signal_sent):
        """Sends the signal to each rank in turn while two answers are streamed and two are awaited: none may differ."""
        requests = [LONG, LONG | SAMPLED, LONG | {"prompt": "It was"}, LONG | {"prompt": "It was"} | SAMPLED]
        with ThreadPoolExecutor(len(requests)) as pool:
            expected = list(pool.map(lambda fields: server.text(**fields), requests))
        for victim in range(len(server.ranks())):
            self.check_pause(server, requests, expected, lambda pids: os.kill(pids[victim], signal_sent))
            # The log has a thread of its own, which may be behind the answers.
            wait_until(lambda: len(server.logged("the ranks are up again; ")) > victim, "a line in the log")
            self.assertEqual(len(server.logged("the ranks are up again; ")), victim + 1)
            self.assertNotIn("again; 0 requests", server.logged("the ranks are up again; ")[-1])
        # mpirun, where there is one, cleaned up and left in its own way.
        self.assertFalse(server.logged("Segmentation fault"))

    def check_pause(self, server, requests, expected, do):
        with ThreadPoolExecutor(2) as pool, server.stream(**requests[0]) as a, server.stream(**requests[1]) as b:
            others = [pool.submit(server.text, **fields) for fields in requests[2:]]
            texts = ["", ""]
            for _ in range(20):
                texts = [text + next(chunks)["choices"][0]["text"] for text, chunks in zip(texts, (a, b))]
            do(server.ranks())
            texts = [text + "".join(chunk["choices"][0]["text"] for chunk in chunks)
                     for text, chunks in zip(texts, (a, b))]
            self.assertEqual(texts + [other.result(PATIENCE_S) for other in others], expected)

    @every_rank_count
    def test_a_killed_rank_is_a_pause(self, ranks):
        with Server(ranks) as server:
            self.check_pauses(server, signal.SIGKILL)
            self.assertEqual(server.end(), 0)

    @every_rank_count
    def test_a_hung_rank_is_a_pause(self, ranks):
        with Server(ranks, "--hang-timeout", 2) as server:
            self.check_pauses(server, signal.SIGSTOP)
            self.assertEqual(server.end(), 0)

    @every_rank_count
    def test_a_rank_that_dies_idle_comes_back(self, ranks):
        with Server(ranks) as server:
            expected = server.text(**LONG)
            os.kill(server.ranks()[-1], signal.SIGKILL)
            wait_until(lambda: server.logged("the ranks are up again; 0 requests"), "ranks up again")
            self.assertEqual(server.request("GET", "/health")[0], 200)
            self.assertEqual(server.text(**LONG), expected)

    @one_rank
    def test_health_and_requests_while_the_ranks_are_away(self):
        with Server(1, "--hang-timeout", 600) as server:
            expected = server.text(**LONG)
            (rank,) = server.ranks()
            os.kill(rank, signal.SIGSTOP)
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.text, **LONG)  # it has to wait
                os.kill(rank, signal.SIGKILL)
                wait_until(lambda: server.request("GET", "/health")[0] == 503 or server.logged("up again"), "503")
                self.assertEqual(answer.result(PATIENCE_S), expected)
            wait_until(lambda: server.request("GET", "/health")[0] == 200, "healthy again")

    @one_rank
    def test_ranks_that_keep_dying_end_the_server_with_errors(self):
        with Server(1, "--restarts", 0) as server, server.stream(**LONG | {"max_tokens": 4000}) as chunks:
            next(chunks)
            os.kill(server.ranks()[0], signal.SIGKILL)
            *_, last = chunks
            self.assertIn("the ranks died 1 times", last["error"]["message"])
            self.assertEqual(server.process.wait(PATIENCE_S), 1)

    def hold_a_request(self, server, stream):
        """Returns the connection of a request that takes the whole cache and the whole queue, and cannot end, as its rank
        is stopped."""
        rank, = server.ranks()
        in_flight = lambda: json.loads(server.request("GET", "/live")[2])["in_flight"]
        body = json.dumps(dict(prompt=[1] * 10, max_tokens=CONTEXT - 10, stream=stream))
        while True:
            connection = server.connect()
            if not stream:
                os.kill(rank, signal.SIGSTOP)
            connection.request("POST", "/v1/completions", body)
            if stream:
                connection.getresponse().readline()
                os.kill(rank, signal.SIGSTOP)
            else:
                wait_until(lambda: in_flight() == 1, "a request in flight")
            if in_flight() == 1:
                return connection, rank
            os.kill(rank, signal.SIGCONT)  # on a slow machine the text may have come to its end before
            connection.close()

    @one_rank
    def test_a_client_that_leaves_frees_its_place(self):
        with Server(1, "--max-queue", 1, "--kv-tokens", CONTEXT) as server:
            for stream in (True, False):
                connection, rank = self.hold_a_request(server, stream)
                status, headers, body = server.request("POST", "/v1/completions", {"prompt": "x"})
                self.assertEqual((status, headers["Retry-After"]), (503, "1"))
                self.assertIn("the queue is full", json.loads(body)["error"]["message"])
                if stream:
                    # http.client keeps the socket open as long as the response is.
                    connection.sock.shutdown(socket.SHUT_RDWR)
                connection.close()
                wait_until(lambda: server.logged("client left")[1 - stream:], "the client's end")
                os.kill(rank, signal.SIGCONT)
                wait_until(lambda: server.request("POST", "/v1/completions", {"prompt": "x"})[0] == 200, "a place")
            left = server.logged("client left")
            self.assertEqual(len(left), 2)
            for line in left:
                self.assertLess(int(re.search(r"(\d+) output tokens", line).group(1)), CONTEXT - 10)

    @every_rank_count
    def test_sigterm_finishes_what_is_in_flight(self, ranks):
        with Server(ranks, "--drain-seconds", PATIENCE_S) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                server.ranks()
                server.process.terminate()
                wait_until(lambda: server.logged("no new requests"), "draining")
                with self.assertRaises(OSError):
                    server.request("GET", "/health")
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)
            self.assertEqual(server.process.wait(PATIENCE_S), 0)
            self.assertFalse(server.seen & set(parents()))

    @every_rank_count
    def test_sigterm_waits_no_longer_than_it_may(self, ranks):
        with Server(ranks, "--drain-seconds", 0.1) as server:
            with server.stream(**LONG | {"max_tokens": 4000}) as chunks:
                next(chunks)
                self.assertEqual(server.end(), 0)
                *_, last = chunks
            self.assertEqual(last["error"]["message"], "the server is shutting down")
            self.assertEqual(last["error"]["code"], 503)

    @every_rank_count
    def test_a_second_signal_ends_at_once(self, ranks):
        with Server(ranks, "--drain-seconds", 10 * PATIENCE_S) as server:
            with server.stream(**LONG | {"max_tokens": 4000}) as chunks:
                next(chunks)
                os.kill(server.ranks()[-1], signal.SIGSTOP)  # so that it cannot end by itself
                server.process.send_signal(signal.SIGINT)
                wait_until(lambda: server.logged("no new requests"), "draining")
                self.assertEqual(server.end(signal.SIGINT), 1)

    @every_rank_count
    def test_a_killed_front_end_leaves_no_rank(self, ranks):
        for busy in (False, True):
            with Server(ranks) as server, contextlib.ExitStack() as stack:
                if busy:
                    chunks = stack.enter_context(server.stream(**LONG | {"max_tokens": 4000}))
                    next(chunks)
                self.assertEqual(len(server.ranks()), ranks)
                server.end(signal.SIGKILL)
                wait_until(lambda: not server.seen & set(parents()), "the ranks to end")

    @one_rank
    def test_keys_and_origins(self):
        with Server(1, "--api-key", "secret", "--api-key", "other", "--cors-origin", "https://a.example") as server:
            body = {"prompt": "x", "max_tokens": 1}
            for key, status in [(None, 401), ("wrong", 401), ("secret", 200), ("other", 200)]:
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                self.assertEqual(server.request("POST", "/v1/completions", body, headers)[0], status)
            self.assertEqual(server.request("GET", "/health")[0], 200)
            status, headers, _ = server.request("OPTIONS", "/v1/completions", None, {
                "Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
            self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (204, "https://a.example"))
            _, headers, _ = server.request("GET", "/health", None, {"Origin": "https://b.example"})
            self.assertIsNone(headers["Access-Control-Allow-Origin"])

    @one_rank
    def test_an_answer_may_take_so_long(self):
        with Server(1, "--max-answer-seconds", 0.5) as server:
            with server.stream(prompt="x", max_tokens=CONTEXT - 10, ignore_eos=True) as chunks:
                next(chunks)
                rank, = server.ranks()
                os.kill(rank, signal.SIGSTOP)  # a fast machine would be done before that
                *_, last = chunks
                os.kill(rank, signal.SIGCONT)
            self.assertEqual(last["error"]["code"], 504)
            self.assertEqual(server.request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1})[0], 200)

    @one_rank
    def test_what_cannot_be_served(self):
        empty = MODEL.parent / "empty"
        empty.mkdir()
        broken = MODEL.parent / "broken"
        shutil.copytree(MODEL, broken)
        (broken / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for model, flags, status, message in [
                (empty, ["--port", "0"], 1, "config.json"),
                (broken, ["--port", "0"], 1, "the ranks died before they were ready"),
                (MODEL, ["--ranks", "17"], 1, "plan foe: expected at most 16 ranks"),
                (MODEL, ["--port", port], 1, "Address already in use"),
                (MODEL, ["--host", "nowhere"], 1, "--host: expected an IP address"),
                (MODEL, ["--hosts", "a:x"], 1, "--hosts: expected different host names, each with a number of ranks"),
                (MODEL, ["--port", "70000"], 2, "--port"),
                (MODEL, ["--max-queue", "0"], 2, "--max-queue"),
            ]:
                with self.subTest(message=message):
                    out = subprocess.run([ARGS.foe, "serve", str(model), *map(str, flags)],
                                         capture_output=True, text=True, timeout=PATIENCE_S)
                    self.assertEqual(out.returncode, status, out.stderr)
                    self.assertIn(message, out.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("foe")
    parser.add_argument("--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    args, rest = parser.parse_known_args()
    ARGS.foe = str(Path(args.foe).resolve())
    ARGS.ranks = args.ranks
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
