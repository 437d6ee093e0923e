#!/usr/bin/env python3
"""Runs `foe bench serve` against a real `foe serve`, and against servers that no client wants, and `foe bench offline` on one rank.
Standard library only.

    tests/apps/bench_serve_test.py build/foe

Checks keys and sums, nothing that depends on the clock.
"""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

MODEL = Path(__file__).parents[2] / "models" / "foe-8m"
PATIENCE_S = 120
FOE = None
METRICS = ["ttft", "tpot", "itl", "e2el"]
# The keys of a result of `vllm bench serve` without audio or diffusion: what main_async() and benchmark() of
# vllm/benchmarks/serve.py put into it (vLLM's repository at 009e6d4a1cd6ba3fb2a9fc00f4ec06f5297232a1), and which of these it
# leaves out without --save-detailed.
VLLM_KEYS = ["date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness",
             "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
             "request_throughput", "request_goodput", "output_throughput", "total_token_throughput", "latencies", "queue_times",
             "max_output_tokens_per_s", "max_concurrent_requests", "rtfx",
             "mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms",
             "mean_tpot_ms", "median_tpot_ms", "std_tpot_ms", "p99_tpot_ms",
             "mean_itl_ms", "median_itl_ms", "std_itl_ms", "p99_itl_ms"]
VLLM_RAMP_KEYS = ["ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps", "rps_change_events"]
VLLM_SPEC_KEYS = ["spec_decode_acceptance_rate", "spec_decode_acceptance_length", "spec_decode_num_drafts",
                  "spec_decode_draft_tokens", "spec_decode_accepted_tokens", "spec_decode_per_position_acceptance_rates"]
VLLM_DETAILS = ["input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors"]


@contextlib.contextmanager
def server(*flags):
    """Gives the port and the process of a `foe serve`."""
    command = [FOE, "serve", MODEL, "--port", "0", "--threads", "1", *flags]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    lines = iter(process.stderr)
    reader = threading.Thread(target=lambda: list(lines), daemon=True)
    try:
        found = next(filter(None, (re.search(r"listening on http://127\.0\.0\.1:(\d+)", line) for line in lines)))
        reader.start()
        yield int(found.group(1)), process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        process.stderr.close()


def wait_for_answers(port, count):
    """Until the server has given so many more whole answers."""
    def given():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as metrics:
            text = metrics.read().decode()
        return sum(map(float, re.findall(r"(?m)^foe:request_success_total\{.*\} (\S+)$", text)))
    count += given()
    end = time.monotonic() + PATIENCE_S
    while given() < count:
        if time.monotonic() > end:
            raise AssertionError("waited in vain for answers")
        time.sleep(0.02)


def body_after(head, connection):
    """The body of the request that begins like this."""
    head, _, body = head.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?mi)^content-length: (\d+)", head).group(1))
    while len(body) < length:
        body += connection.recv(65536)
    return body


@contextlib.contextmanager
def scripted_server(answer, seen=None):
    """Gives the port of a server that lists a model, has no metrics, and otherwise does what answer(connection) does. What it
    was sent is put into `seen`, heads and bodies.
    """
    models = b'{"data": [{"id": "m"}]}'
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            if request.startswith(b"GET /v1/models "):
                head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(models)
                connection.sendall(head + models)
            elif request.startswith(b"GET /metrics "):
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            else:
                if seen is not None:
                    seen.append((request.partition(b"\r\n\r\n")[0].decode(), json.loads(body_after(request, connection))))
                answer(connection)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


TOKEN = b'data: {"choices": [{"index": 0, "text": "x", "finish_reason": null}]}\n\n'


class Bench(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, port, *flags):
        return self.run_foe(port, "--save-detailed", "--result-dir", self.folder, "--result-filename", "r.json", *flags)

    def run_foe(self, port, *flags):
        command = [FOE, "bench", "serve", "--port", port, *flags]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def bench(self, port, *flags, status=0):
        """Returns what was printed and, if it is there, what was saved."""
        process = self.start(port, *flags)
        out, err = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, status, out + err)
        path = self.folder / "r.json"
        return out + err, json.loads(path.read_text("utf-8")) if path.exists() else None

    def plain(self, port, *flags, status=0):
        """Returns what a run without flags for its result printed."""
        process = self.run_foe(port, *flags)
        out, err = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, status, out + err)
        return out + err

    def check_sums(self, result):
        self.assertLessEqual({*VLLM_KEYS, *VLLM_DETAILS}, set(result))
        self.assertLessEqual({f"{figure}_{metric}_ms" for figure in ("mean", "median", "std", "p99") for metric in METRICS},
                             set(result))
        ended = result["completed"] + result["failed"]
        for key in "latencies", "queue_times", *VLLM_DETAILS:
            self.assertEqual(len(result[key]), ended, key)
        ok = [error == "" for error in result["errors"]]
        self.assertEqual(sum(ok), result["completed"])
        self.assertEqual(sum(result["failures_by_status"].values()), result["failed"])
        for total, lens in ("total_input_tokens", "input_lens"), ("total_output_tokens", "output_lens"):
            self.assertEqual(result[total], sum(length for length, good in zip(result[lens], ok) if good))
        self.assertEqual(result["total_output_tokens"], sum(result["output_lens"]))
        self.assertAlmostEqual(result["request_throughput"] * result["duration"], result["completed"])
        self.assertAlmostEqual(result["output_throughput"] * result["duration"], result["total_output_tokens"])
        mean = sum(t for t, good in zip(result["ttfts"], ok) if good) / max(1, sum(ok))
        self.assertAlmostEqual(result["mean_ttft_ms"], 1000 * mean)
        for ttft, itls, latency in zip(result["ttfts"], result["itls"], result["latencies"]):
            self.assertAlmostEqual(ttft + sum(itls), latency)
        for due, sent, queued in zip(result["due_times"], result["start_times"], result["queue_times"]):
            self.assertGreaterEqual(sent, due)
            self.assertAlmostEqual(sent - due, queued)


class RealServer(Bench):
    @classmethod
    def setUpClass(cls):
        cls.port, cls.process = cls.enterClassContext(server())

    def test_random_ids(self):
        text, result = self.bench(self.port, "--tokenizer", MODEL, "--num-prompts", 12, "--request-rate", 100, "--input-len", 20,
                                  "--output-len", 8, "--num-warmups", 2, "--goodput", "e2el:1e6", "--metadata", "who=me",
                                  "--metric-percentiles", "50,99")
        self.check_sums(result)
        self.assertEqual((result["completed"], result["failed"], result["num_prompts"]), (12, 0, 12))
        self.assertEqual((result["model_id"], result["request_rate"], result["who"]), ("foe-8m", 100, "me"))
        self.assertEqual((result["input_lens"], result["output_lens"]), (12 * [20], 12 * [8]))
        self.assertEqual(result["output_tokens_from"], "usage")
        self.assertEqual(result["request_goodput"], result["request_throughput"])
        self.assertEqual(result["p50_ttft_ms"], result["median_ttft_ms"])
        self.assertRegex(text, r"(?m)^Successful requests: +12 *$")
        self.assertRegex(text, r"(?m)^Total generated tokens: +96 *$")

    def test_results_have_vllms_keys(self):
        flags = ["--num-prompts", 3, "--input-len", 3, "--output-len", 2, "--result-dir", self.folder, "--label", "mine"]
        self.plain(self.port, *flags, "--save-result")
        self.plain(self.port, *flags, "--save-detailed", "--ramp-up-strategy", "linear", "--ramp-up-start-rps", 100,
                   "--ramp-up-end-rps", 102, "--max-concurrency", 3)
        (plain,) = self.folder.glob("mine-infqps-foe-8m-*.json")
        (ramp,) = self.folder.glob("mine-ramp-up-linear-100qps-102qps-concurrency3-foe-8m-*.json")
        for path, there, absent in ((plain, VLLM_KEYS, VLLM_DETAILS + VLLM_SPEC_KEYS),
                                    (ramp, VLLM_KEYS + VLLM_DETAILS + VLLM_RAMP_KEYS, VLLM_SPEC_KEYS)):
            text = path.read_text("utf-8")
            result = json.loads(text)
            self.assertEqual([key for key in there if key not in result], [])
            self.assertEqual([key for key in absent if key in result], [])
            self.assertEqual(text.count("\n"), 1)
            self.assertEqual((result["label"], result["rtfx"], result["request_rate"]), ("mine", 0, "inf"))
            self.assertIsNone(result["tokenizer_id"])
            self.assertIsNone(result["request_goodput"])

    def test_what_the_server_has_guessed(self):
        with server("--draft-tokens", 6) as (port, _):
            # The warm-up's guesses do not count.
            text, result = self.bench(port, "--num-prompts", 3, "--input-len", 8, "--output-len", 100, "--num-warmups", 1)
            self.check_sums(result)
            self.assertEqual([key for key in VLLM_SPEC_KEYS if key not in result], [])
            drafts, guessed, accepted = (result[f"spec_decode_{name}"] for name in ("num_drafts", "draft_tokens", "accepted_tokens"))
            self.assertTrue(0 < drafts <= guessed <= 6 * drafts and 0 <= accepted <= guessed)
            self.assertLess(accepted, 300)
            self.assertAlmostEqual(result["spec_decode_acceptance_rate"], 100 * accepted / guessed)
            self.assertAlmostEqual(result["spec_decode_acceptance_length"], 1 + accepted / drafts)
            self.assertEqual(result["spec_decode_per_position_acceptance_rates"], [])
            self.assertRegex(text, rf"(?m)^Draft tokens: +{guessed} *$")

    def test_texts_and_backends(self):
        for backend, path in ("vllm", "/v1/completions"), ("openai-chat", "/v1/chat/completions"):
            with self.subTest(backend):
                _, result = self.bench(self.port, "--backend", backend, "--num-prompts", 2, "--input-len", 3, "--output-len", 5)
                self.check_sums(result)
                self.assertEqual((result["backend"], result["endpoint_type"], result["failed"]), (backend, backend, 0))
                for text in result["generated_texts"]:
                    self.assertGreater(len(text), 0)
                again = self.bench(self.port, "--endpoint", path, "--num-prompts", 2, "--input-len", 3, "--output-len", 5)[1]
                self.assertEqual(again["generated_texts"], result["generated_texts"])
        self.assertEqual(again["backend"], "openai-chat")

    def test_a_growing_rate(self):
        flags = ["--num-prompts", 5, "--input-len", 3, "--output-len", 1, "--burstiness", 1e6]
        for strategy, rates in ("linear", [125, 250, 375, 500]), ("exponential", [200, 400, 800, 1600]):
            text, result = self.bench(self.port, *flags, "--ramp-up-strategy", strategy, "--ramp-up-start-rps",
                                      100 if strategy == "exponential" else 0.001, "--ramp-up-end-rps", rates[-1])
            due = result["due_times"]
            for a, b, rate in zip(due, due[1:], rates):
                self.assertAlmostEqual((b - a) * rate, 1, delta=0.02)
            self.assertIn(f"to {rates[-1]} per second", text)
            self.assertEqual((result["ramp_up_strategy"], result["ramp_up_end_rps"]), (strategy, rates[-1]))
            rps = [event["rps"] for event in result["rps_change_events"]]
            self.assertEqual(rps, list(range(rps[0], rates[-1] + 1)))

    def test_one_file_grows(self):
        flags = ["--num-prompts", 2, "--input-len", 3, "--output-len", 1, "--append-result", "--result-dir", self.folder,
                 "--result-filename", "all.jsonl"]
        self.plain(self.port, *flags, "--request-rate", "50,100")
        self.plain(self.port, *flags, "--metadata", "a=1", "b=x=y")
        lines = [json.loads(line) for line in (self.folder / "all.jsonl").read_text("utf-8").splitlines()]
        self.assertEqual([line["request_rate"] for line in lines], [50, 100, "inf"])
        self.assertEqual((lines[2]["a"], lines[2]["b"]), ("1", "x=y"))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["all.jsonl"])

    def test_waiting_for_others(self):
        text, result = self.bench(self.port, "--num-prompts", 4, "--input-len", 3, "--output-len", 3, "--max-concurrency", 1,
                                  "--percentile-metrics", "client_queue_time,e2el_including_client_queue",
                                  "--metric-percentiles", "100")
        queues = result["queue_times"]
        self.assertEqual(queues, sorted(queues))
        self.assertAlmostEqual(result["p100_client_queue_time_ms"], 1000 * queues[-1])
        self.assertAlmostEqual(result["p100_e2el_including_client_queue_ms"],
                               1000 * max(map(sum, zip(queues, result["latencies"]))))
        self.assertNotIn("mean_ttft_ms", result)
        self.assertRegex(text, r"(?m)^P100 Client Queue Time \(ms\): ")

    def test_the_seed_decides_when(self):
        flags = ["--num-prompts", 5, "--request-rate", 200, "--input-len", 3, "--output-len", 1, "--burstiness", 0.5]
        times = [self.bench(self.port, *flags, "--seed", seed)[1]["due_times"] for seed in (1, 1, 2)]
        self.assertEqual(times[0], times[1])
        self.assertNotEqual(times[0], times[2])

    def test_words_and_a_limit(self):
        text, result = self.bench(self.port, "--num-prompts", 6, "--input-len", 9, "--output-len", 3, "--max-concurrency", 2)
        self.assertIn("random words", text)
        self.check_sums(result)
        self.assertEqual((result["completed"], result["request_rate"], result["max_concurrency"]), (6, "inf", 2))
        self.assertEqual(result["max_concurrent_requests"], 2)

    def test_a_sweep_has_a_file_for_each_rate(self):
        self.bench(self.port, "--num-prompts", 3, "--input-len", 3, "--output-len", 2, "--request-rate", "50,100,inf")
        rates = {path.name: json.loads(path.read_text("utf-8"))["request_rate"] for path in self.folder.iterdir()}
        self.assertEqual(rates, {"r-50qps.json": 50, "r-100qps.json": 100, "r-infqps.json": "inf"})

    def test_files(self):
        for dataset, text, prompts in (
            ("custom", '{"prompt": "It was", "output_tokens": 3}\n{"prompt": "a"}\n', [3, 256]),
            ("sharegpt", json.dumps([{"conversations": [{"value": "Anne had"}, {"value": "a"}]}]), [1]),
            ("longbench", '{"context": "It was a dark night.", "input": "Was it?", "length": 5}\n', [256]),
            ("trace", "Timestamp,Request tokens,Response tokens\n3,5,2\n3.01,7,4\n", [2, 4]),
        ):
            path = self.folder / "data"
            path.write_text(text)
            _, result = self.bench(self.port, "--tokenizer", MODEL, "--dataset-name", dataset, "--dataset-path", path,
                                   "--ignore-eos")
            self.assertEqual((result["output_lens"], result["failed"]), (prompts, 0), dataset)
            self.check_sums(result)

    def test_the_papers_workload(self):
        text, result = self.bench(self.port, "--tokenizer", MODEL, "--preset", "paper", "--scale", 0.02, "--gap", "0.5",
                                  "--num-prompts", 4)
        self.assertEqual((result["completed"], result["output_lens"]), (4, 4 * [256]))
        self.assertEqual(result["request_rate"], 100)
        self.assertEqual(result["dataset"], "paper")

    def test_refused_requests_are_failures(self):
        text, result = self.bench(self.port, "--num-prompts", 3, "--input-len", 5, "--output-len", 5, "--model", "other",
                                  status=1)
        self.assertEqual(result["failures_by_status"], {"404": 3})
        self.assertIn("no request was answered", text)

    def test_interrupted(self):
        process = self.start(self.port, "--num-prompts", 10000, "--max-concurrency", 1, "--input-len", 5, "--output-len", 1)
        wait_for_answers(self.port, 2)  # one after the other: at least the first has come
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 0, out + err)
        result = json.loads((self.folder / "r.json").read_text("utf-8"))
        self.check_sums(result)
        self.assertTrue(result["interrupted"])
        self.assertTrue(0 < result["completed"] < 10000)
        self.assertIn("Serving Benchmark Result", out)


class Overload(Bench):
    def test_what_a_full_server_refuses(self):
        with server("--max-queue", 2) as (port, _):
            _, result = self.bench(port, "--num-prompts", 40, "--input-len", 5, "--output-len", 60)
        self.check_sums(result)
        self.assertEqual(result["completed"] + result["failed"], 40)
        self.assertGreater(result["completed"], 0)
        self.assertEqual(result["failures_by_status"], {"503": result["failed"]})
        self.assertEqual(result["retry_after"], {"1": result["failed"]})

    def test_a_server_that_dies(self):
        with server() as (port, process):
            # Four at a time: when the first has been answered, most have not been sent.
            bench = self.start(port, "--num-prompts", 200, "--max-concurrency", 4, "--input-len", 5, "--output-len", 200)
            wait_for_answers(port, 1)
            process.kill()
            out, err = bench.communicate(timeout=PATIENCE_S)
        self.assertIn(bench.returncode, (0, 1), out + err)
        result = json.loads((self.folder / "r.json").read_text("utf-8"))
        self.check_sums(result)
        self.assertEqual(result["completed"] + result["failed"], 200)
        self.assertLessEqual(set(result["failures_by_status"]), {"0", "200"})
        self.assertGreater(result["failures_by_status"]["0"], 0)


class BadServers(Bench):
    FLAGS = ["--num-prompts", 3, "--input-len", 2, "--output-len", 4]

    def failures(self, answer, *flags):
        with scripted_server(answer) as port:
            _, result = self.bench(port, *self.FLAGS, *flags, status=1)
        self.check_sums(result)
        self.assertEqual(result["failed"], 3)
        (error,) = result["failures_by_error"]
        return error

    def test_answers_that_are_none(self):
        for bytes_sent, expected in (
            (b"", "no reply: end of stream"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "no reply: bad version"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: " + 100000 * b"x", "no reply: header limit exceeded"),
            (STREAM + chunk(TOKEN), "the reply broke off"),
            (STREAM + b"zz\r\n", "the reply broke off: bad chunk"),
            (STREAM + chunk(TOKEN) + b"0\r\n\r\n", "without a finish_reason or [DONE]"),
            (STREAM + chunk(b"data: {\n\n"), "expected a JSON object in an event, got {"),
            (STREAM + chunk(b"data: \xff\n\n"), "expected a JSON object in an event"),
            (STREAM + chunk(b"data: " + 2_000_000 * b"x"), "at most 1 MiB"),
            (STREAM + chunk(b'data: {"error": {"message": "no luck"}}\n\ndata: [DONE]\n\n') + b"0\r\n\r\n", "no luck"),
            (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nboom", "status 500: boom"),
            (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "status 302"),
        ):
            with self.subTest(bytes_sent[:80]):
                self.assertIn(expected, self.failures(lambda connection: connection.sendall(bytes_sent)))

    def test_a_server_that_says_nothing(self):
        end = threading.Event()
        self.addCleanup(end.set)
        self.assertEqual(self.failures(lambda _: end.wait(PATIENCE_S), "--timeout", 0.3), "no reply within 0.3 s")

    def test_a_server_that_stops(self):
        end = threading.Event()
        self.addCleanup(end.set)

        def answer(connection):
            connection.sendall(STREAM + chunk(TOKEN))
            end.wait(PATIENCE_S)
        self.assertEqual(self.failures(answer, "--timeout", 0.3), "the reply broke off within 0.3 s")

    def test_a_server_that_never_ends(self):
        def answer(connection):
            connection.sendall(STREAM)
            while True:
                connection.sendall(chunk(TOKEN * 500))
        self.assertEqual(self.failures(answer, "--timeout", 0.3), "the reply did not end within 0.3 s")

    def test_bytes_one_by_one(self):
        stream = STREAM + chunk(TOKEN) + chunk(TOKEN) + chunk(b"data: [DONE]\r\n\r\n") + b"0\r\n\r\n"

        def answer(connection):
            for byte in stream:
                connection.sendall(bytes([byte]))
        with scripted_server(answer) as port:
            _, result = self.bench(port, *self.FLAGS)
        self.assertEqual((result["completed"], result["output_lens"]), (3, [2, 2, 2]))
        self.assertEqual(result["output_tokens_from"], "chunks")

    def test_what_requests_carry(self):
        def answer(connection):
            connection.sendall(STREAM + chunk(TOKEN) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        seen = []
        with scripted_server(answer, seen) as port:
            _, result = self.bench(port, "--num-prompts", 2, "--input-len", 2, "--output-len", 4, "--model", "org/mine",
                                   "--served-model-name", "theirs", "--header", "X-A=1", "authorization=Basic x=",
                                   "--request-id-prefix", "run-", "--logprobs", 2, "--top-k", 3, "--temperature", 0.5,
                                   "--extra-body", '{"temperature": 0.75, "x": [1]}', "--num-warmups", 1,
                                   "--max-concurrency", 1)
            self.bench(port, "--num-prompts", 1, "--input-len", 2, "--backend", "openai-chat", "--logprobs", 2,
                       "--extra-body", '{"max_completion_tokens": 9}')
        self.assertEqual((result["model_id"], result["generated_texts"]), ("org/mine", ["x", "x"]))
        heads = [head.lower().splitlines() for head, _ in seen]
        for head, number in zip(heads, (None, 0, 1)):
            self.assertEqual(head[0], "post /v1/completions http/1.1")
            self.assertIn("x-a: 1", head)
            self.assertEqual([line for line in head if line.startswith("authorization:")], ["authorization: basic x="])
            self.assertEqual([line for line in head if line.startswith("x-request-id:")],
                             [] if number is None else [f"x-request-id: run-{number}"])
        for _, body in seen[:3]:
            self.assertEqual(body | {"prompt": ""}, {
                "model": "theirs", "prompt": "", "max_tokens": 4, "logprobs": 2, "top_k": 3, "temperature": 0.75, "x": [1],
                "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}})
        (_, chat), = seen[3:]
        self.assertEqual((chat["model"], chat["logprobs"], chat["top_logprobs"]), ("m", True, 2))
        self.assertEqual((chat["max_completion_tokens"], "max_tokens" in chat), (9, False))
        self.assertEqual(heads[3][0], "post /v1/chat/completions http/1.1")

    def test_results_that_cannot_be_written_cost_no_run(self):
        seen = []
        (self.folder / "file").write_text("")
        with scripted_server(lambda connection: None, seen) as port:
            for flags, message in (
                (["--save-result", "--result-dir", self.folder / "file/x"], "--result-dir: expected to make "),
                (["--save-result", "--result-filename", self.folder], "--save-result: .*: expected to open it, got: Is a dir"),
                (["--append-result", "--result-filename", self.folder], "--append-result: .*: expected to open it, got: Is a "),
                (["--save-result", "--result-filename", 300 * "x"], "--save-result: .*: expected to create it, got: File name t"),
                (["--save-result", "--metadata", "ttfts=1"], "--metadata: expected a KEY that the result does not have itself"),
                (["--save-result", "--metadata", "a=1", "a=2"], "--metadata: expected a KEY that the result does not have"),
            ):
                with self.subTest(flags):
                    self.assertRegex(self.plain(port, *self.FLAGS, *flags, status=1), message)
        self.assertEqual(seen, [])
        self.assertEqual([path.name for path in self.folder.iterdir()], ["file"])

    def test_no_server(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        text, result = self.bench(port, status=1)
        self.assertIn("cannot connect: Connection refused", text)
        self.assertIsNone(result)

    def test_flags(self):
        ramp = ["--ramp-up-strategy", "linear", "--ramp-up-start-rps"]
        for flags, status, message in (
            (["--request-rate", "0"], 2, "--request-rate"),
            (["--request-rate", "nan"], 2, "--request-rate"),
            (["--request-rate", "2,1,2"], 1, "--request-rate: expected each rate once, got 2"),
            (["--request-rate", "1,x"], 2, "--request-rate"),
            (["--burstiness", "0"], 2, "--burstiness"),
            (["--scale", "nan"], 2, "--scale"),
            (["--random-range-ratio", "1.1"], 2, "--random-range-ratio"),
            (["--dataset-name", "what"], 2, "--dataset-name"),
            (["--num-prompts", "0"], 2, "--num-prompts"),
            (["--metric-percentiles", "101"], 2, "--metric-percentiles"),
            (["--percentile-metrics", "ttft,x"], 2, "--percentile-metrics"),
            (["--endpoint", "/v1/embeddings"], 2, "--endpoint"),
            (["--goodput", "ttft"], 2, "--goodput: expected"),
            (["--metadata", "x"], 2, "--metadata: expected"),
            (["--label", "a/b"], 2, "--label: expected"),
            (["--backend", "tgi"], 2, "expected openai or vllm (completions), or openai-chat (chats), got 'tgi'"),
            (["--backend", "openai-chat", "--endpoint", "/v1/completions"], 1, "--endpoint: expected one for chats"),
            (["--header", "x"], 2, "--header: expected KEY=VALUE"),
            (["--header", "Host=x"], 2, "--header: expected a header that the client does not send itself"),
            (["--header", "Authorization=x", "--api-key", "y"], 1, "--api-key: expected no --header Authorization"),
            (["--header", "X-Request-Id=x", "--request-id-prefix", "y"], 1, "--request-id-prefix: expected no --header"),
            (["--logprobs", "-1"], 2, "--logprobs"),
            (["--logprobs", "1.5"], 2, "--logprobs"),
            (["--extra-body", '{"prompt": ""}'], 1, "--extra-body: expected fields besides prompt"),
            (["--extra-body", '{"stream": false}'], 1, '--extra-body: expected "stream": true'),
            (["--ramp-up-strategy", "cubic"], 2, "--ramp-up-strategy"),
            (["--ramp-up-strategy", "linear"], 2, "--ramp-up-strategy requires --ramp-up-start-rps"),
            (["--ramp-up-start-rps", "1", "--ramp-up-end-rps", "2"], 2, "requires --ramp-up-strategy"),
            ([*ramp, "0", "--ramp-up-end-rps", "2"], 2, "--ramp-up-start-rps"),
            ([*ramp, "3", "--ramp-up-end-rps", "2"], 1, "--ramp-up-end-rps: expected at least --ramp-up-start-rps, 3, got 2"),
            ([*ramp, "1", "--ramp-up-end-rps", "2", "--request-rate", "2"], 2, "excludes"),
            ([*ramp, "1", "--ramp-up-end-rps", "2", "--preset", "paper", "--gap", "1"], 1, "--gap: expected no --request-rate"),
            (["--gap", "1"], 1, "--gap: expected --preset paper"),
            (["--burstiness", "2"], 1, "--burstiness: expected a finite --request-rate"),
            (["--model", "m", "--disable-shuffle"], 1, "--disable-shuffle: expected it with prompts of a file"),
            (["--model", "m", "--dataset-path", "x"], 1, "--dataset-path: expected it with a dataset that is a file"),
            (["--base-url", "https://x"], 2, "--base-url: expected http://"),
            (["--base-url", "http://x:99999"], 2, "--base-url: expected http://"),
            (["--tokenizer", "/nowhere"], 1, "/nowhere"),
        ):
            with self.subTest(flags):
                self.assertIn(message, self.bench(1, *flags, status=status)[0])
        for flag in ("--result-dir", "--result-filename", "--label", "--metadata"):
            self.assertIn(f"{flag}: expected --save-result, --save-detailed or --append-result beside it",
                          self.plain(1, flag, "a=b", status=1))


class Offline(Bench):
    def offline(self, *flags):
        path = self.folder / "offline.json"
        done = subprocess.run([FOE, "bench", "offline", str(MODEL), "--threads", "1", "--json", str(path), *flags],
                              capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, json.loads(path.read_text("utf-8"))

    def test_tokens_and_rates(self):
        text, result = self.offline("--num-prompts", "10", "--input-len", "30", "--output-len", "6", "--max-sequences", "4")
        self.assertEqual((result["requests"], result["prompt_tokens"], result["output_tokens"]), (10, 300, 60))
        self.assertAlmostEqual(result["total_tokens_per_second"] * result["seconds"], 360)
        self.assertIn("output tokens/s", text)

    def test_prompts_of_a_file(self):
        (self.folder / "p.jsonl").write_text('{"prompt": "It was", "output_tokens": 5}\n')
        _, result = self.offline("--dataset-name", "custom", "--dataset-path", str(self.folder / "p.jsonl"))
        self.assertEqual((result["requests"], result["output_tokens"]), (1, 5))


if __name__ == "__main__":
    FOE = sys.argv.pop(1)
    unittest.main(verbosity=2)
