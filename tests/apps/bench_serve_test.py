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


@contextlib.contextmanager
def scripted_server(answer):
    """Gives the port of a server that lists a model, and otherwise does what answer(connection) does."""
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
            else:
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
        command = [FOE, "bench", "serve", "--port", port, "--save-detailed", "--result-dir", self.folder,
                   "--result-filename", "r.json", *flags]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def bench(self, port, *flags, status=0):
        """Returns what was printed and, if it is there, what was saved."""
        process = self.start(port, *flags)
        out, err = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, status, out + err)
        path = self.folder / "r.json"
        return out + err, json.loads(path.read_text("utf-8")) if path.exists() else None

    def check_sums(self, result):
        for key in ["date", "model_id", "num_prompts", "request_rate", "burstiness", "max_concurrency", "duration", "completed",
                    "failed", "total_input_tokens", "total_output_tokens", "request_throughput", "output_throughput",
                    "total_token_throughput", "input_lens", "output_lens", "ttfts", "itls", "start_times", "errors",
                    *(f"{figure}_{metric}_ms" for figure in ("mean", "median", "std", "p99") for metric in METRICS)]:
            self.assertIn(key, result)
        ended = result["completed"] + result["failed"]
        for key in "input_lens", "output_lens", "ttfts", "itls", "start_times", "errors":
            self.assertEqual(len(result[key]), ended, key)
        ok = [error == "" for error in result["errors"]]
        self.assertEqual(sum(ok), result["completed"])
        self.assertEqual(sum(result["failures_by_status"].values()), result["failed"])
        for total, lens in ("total_input_tokens", "input_lens"), ("total_output_tokens", "output_lens"):
            self.assertEqual(result[total], sum(length for length, good in zip(result[lens], ok) if good))
        self.assertAlmostEqual(result["request_throughput"] * result["duration"], result["completed"])
        self.assertAlmostEqual(result["output_throughput"] * result["duration"], result["total_output_tokens"])
        mean = sum(t for t, good in zip(result["ttfts"], ok) if good) / max(1, sum(ok))
        self.assertAlmostEqual(result["mean_ttft_ms"], 1000 * mean)
        for due, sent in zip(result["due_times"], result["start_times"]):
            self.assertGreaterEqual(sent, due)


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

    def test_no_server(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        text, result = self.bench(port, status=1)
        self.assertIn("cannot connect: Connection refused", text)
        self.assertIsNone(result)

    def test_flags(self):
        for flags, status, message in (
            (["--request-rate", "0"], 2, "--request-rate"),
            (["--request-rate", "nan"], 2, "--request-rate"),
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
            (["--base-url", "https://x"], 2, "--base-url: expected http://"),
            (["--base-url", "http://x:99999"], 2, "--base-url: expected http://"),
            (["--tokenizer", "/nowhere"], 1, "/nowhere"),
        ):
            with self.subTest(flags):
                self.assertIn(message, self.bench(1, *flags, status=status)[0])


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
