#!/usr/bin/env python3
"""What can happen to `foe serve` while its ranks are away, or because they were.

    tests/server/restart_test.py build/foe
"""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import serve_test
from random_model import make_config, write_random_model
from serve_test import CONTEXT, LONG, SAMPLED, Server, command_of, descendants, setUpModule, tearDownModule, wait_until  # noqa: F401

ENDLESS = LONG | {"max_tokens": CONTEXT - 100, "ignore_eos": True}


def mpirun_of(server):
    return [pid for pid in descendants(server.process.pid) if command_of(pid)[:1] and command_of(pid)[0].endswith(b"mpirun")][0]


def replace_mpirun(test, lines):
    """As long as the test runs, mpirun is a shell script of these lines. Returns its folder."""
    folder = Path(test.enterContext(tempfile.TemporaryDirectory()))
    mpirun = folder / "mpirun"
    mpirun.write_text(f"#!/bin/sh\ncd {folder}\n{lines}\n")
    mpirun.chmod(0o755)
    test.enterContext(mock.patch.dict(os.environ, {"PATH": f"{folder}:{os.environ['PATH']}"}))
    return folder


class Restarts(unittest.TestCase):

    def setUp(self):
        # As long as the file "hold" is there, no mpirun begins.
        folder = replace_mpirun(self, f'while [ -e hold ]; do sleep 0.05; done\nexec {shutil.which("mpirun")} "$@"')
        self.hold, self.mpirun = folder / "hold", folder / "mpirun"

    def kill(self, server):
        """Kills the ranks. The next ones stay away until let_go()."""
        self.hold.touch()
        for pid in server.ranks():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.logged("the ranks are lost"), "the loss")
        self.assertEqual(server.request("GET", "/health")[0], 503)

    def held(self, server):
        """Returns the process that is to be mpirun, and maybe a child of it that is to be its sleep."""
        return [pid for pid in descendants(server.process.pid) if str(self.mpirun).encode() in command_of(pid)]

    def let_go(self):
        self.hold.unlink()

    def test_a_front_end_that_was_stopped_goes_on(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks), Server(ranks, "--hang-timeout", 1) as server:
                expected = [server.text(**LONG), server.text(**LONG | SAMPLED)]
                with ThreadPoolExecutor(2) as pool, server.stream(**LONG) as chunks:
                    text = next(chunks)["choices"][0]["text"]
                    other = pool.submit(server.text, **LONG | SAMPLED)
                    server.process.send_signal(signal.SIGSTOP)
                    time.sleep(4)  # longer than any rank may be silent
                    server.process.send_signal(signal.SIGCONT)
                    text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
                    self.assertEqual([text, other.result(serve_test.PATIENCE_S)], expected)
                self.assertEqual(server.logged("the ranks are lost"), [])

    def test_a_front_end_that_was_stopped_while_ranks_died_goes_on(self):
        with Server(2) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                ranks = server.ranks()
                server.process.send_signal(signal.SIGSTOP)
                os.kill(ranks[0], signal.SIGKILL)
                time.sleep(3)
                server.process.send_signal(signal.SIGCONT)
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)

    def test_a_stage_may_die_while_several_steps_are_under_way(self):
        requests = [LONG, LONG | {"prompt": "It was"}, LONG | SAMPLED]
        with Server(3, "--plan", "pp") as server, ExitStack() as streams:
            expected = [server.text(**request) for request in requests]
            answers = [streams.enter_context(server.stream(**request)) for request in requests]
            texts = [next(chunks)["choices"][0]["text"] for chunks in answers]
            with server.stream(**ENDLESS) as chunks:  # its client leaves while a step of it is under way
                next(chunks)
            os.kill(server.ranks()[1], signal.SIGKILL)
            for i, chunks in enumerate(answers):
                texts[i] += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(texts, expected)
            self.assertEqual(len(server.logged("the ranks are lost")), 1)
            sends = r'foe:comm_bytes_total{collective="send",.*rank="[012]"} [1-9]'
            wait_until(lambda: len(re.findall(sends, server.request("GET", "/metrics")[2].decode())) == 3, "what is counted")

    def test_a_rank_may_die_that_has_some_rows_of_every_sequence(self):
        requests = [LONG, LONG | {"prompt": "It was a dark and stormy night. " * 20}, LONG | SAMPLED]
        model = Path(self.enterContext(tempfile.TemporaryDirectory())) / "moe"
        write_random_model(model, make_config(hidden_size=128, num_hidden_layers=2, vocab_size=561, max_position_embeddings=CONTEXT),
                           seed=5)
        shutil.copy(serve_test.MODEL / "tokenizer.json", model)
        with Server(1, model=model) as server:
            expected = [server.text(**request) for request in requests]
        with Server(3, "--plan", "ep", "--ep-attention", "split", model=model) as server, ExitStack() as streams:
            answers = [streams.enter_context(server.stream(**request)) for request in requests]
            texts = [next(chunks)["choices"][0]["text"] for chunks in answers]
            os.kill(server.ranks()[2], signal.SIGKILL)
            for i, chunks in enumerate(answers):
                texts[i] += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(texts, expected)
            self.assertEqual(len(server.logged("the ranks are lost")), 1)

    def test_mpirun_may_die_alone(self):
        with Server(2) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                old = server.ranks()
                os.kill(mpirun_of(server), signal.SIGKILL)
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)
            self.assertFalse(set(old) & set(serve_test.parents()))

    def test_mpirun_may_be_stopped(self):
        with Server(2, "--hang-timeout", 2) as server:
            expected = server.text(**LONG)
            os.kill(mpirun_of(server), signal.SIGSTOP)
            self.assertEqual(server.text(**LONG), expected)
            os.kill(server.ranks()[1], signal.SIGKILL)
            self.assertEqual(server.text(**LONG), expected)
            os.kill(mpirun_of(server), signal.SIGSTOP)
            self.assertEqual(server.end(), 0)

    def test_ranks_that_die_again_before_they_are_ready(self):
        with Server(2) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                self.kill(server)
                wait_until(lambda: self.held(server), "the next ranks")
                os.kill(self.held(server)[0], signal.SIGKILL)
                self.let_go()
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)
            self.assertEqual(len(server.logged("the ranks are lost")), 2)

    def test_time_runs_out_during_a_restart(self):
        with Server(2, "--max-answer-seconds", 3) as server:
            expected = server.text(**LONG | {"max_tokens": 20})
            with server.stream(**ENDLESS) as chunks:
                next(chunks)
                self.kill(server)
                *_, last = chunks
                self.assertEqual(last["error"]["code"], 504)
            self.let_go()
            wait_until(lambda: server.logged("again; 0 requests go on"), "the ranks")
            self.assertEqual(server.text(**LONG | {"max_tokens": 20}), expected)

    def test_a_client_leaves_during_a_restart(self):
        with Server(2) as server:
            with server.stream(**ENDLESS) as chunks:
                next(chunks)
                self.kill(server)
            # The end of a stream is a closed connection only once its response is gone, too.
            del chunks
            wait_until(lambda: server.logged("client left"), "the client's leave")
            self.let_go()
            wait_until(lambda: server.logged("again; 0 requests go on"), "the ranks")

    def test_a_probe_during_a_restart(self):
        with Server(1, "--hang-timeout", 600) as server:
            (rank,) = server.ranks()
            os.kill(rank, signal.SIGSTOP)
            with ThreadPoolExecutor(1) as pool:
                probe = pool.submit(server.request, "GET", "/health_generate")  # accepted, and waits
                wait_until(lambda: json.loads(server.request("GET", "/live")[2])["in_flight"] == 1, "the probe")
                os.kill(rank, signal.SIGKILL)
                self.assertEqual(probe.result(serve_test.PATIENCE_S)[0], 200)

    def test_signals_during_a_restart(self):
        for count in (1, 2):
            with self.subTest(signals=count), Server(2, "--drain-seconds", 1 if count == 1 else 600) as server:
                with server.stream(**ENDLESS) as chunks:
                    next(chunks)
                    self.kill(server)
                    if count == 2:
                        server.process.terminate()
                        wait_until(lambda: server.logged("no new requests"), "draining")
                    self.assertEqual(server.end(), count - 1)
                    self.let_go()
                    *_, last = chunks
                    self.assertEqual(last["error"]["code"], 503)


class Upgrade(unittest.TestCase):

    def test_the_program_may_be_replaced_while_it_runs(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        program = folder / "foe"
        shutil.copy(serve_test.ARGS.foe, program)
        for ranks in (1, 2):
            with (self.subTest(ranks=ranks), mock.patch.object(serve_test.ARGS, "foe", str(program)),
                  Server(ranks) as server):
                expected = server.text(**LONG)
                with server.stream(**LONG) as chunks:
                    text = next(chunks)["choices"][0]["text"]
                    shutil.copy(program, folder / "new")
                    os.replace(folder / "new", program)
                    for pid in server.ranks():
                        os.kill(pid, signal.SIGKILL)
                    text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
                self.assertEqual(text, expected)


class DeadlyRequest(unittest.TestCase):

    DEADLY = [101, 202, 303, 404]

    def test_a_request_that_ranks_die_of_ends_alone(self):
        deadly_mpirun = Path(__file__).resolve().with_name("deadly_mpirun.py")
        ids = ",".join(map(str, self.DEADLY))
        replace_mpirun(self, f'exec {sys.executable} {deadly_mpirun} {ids} {shutil.which("mpirun")} "$@"')
        others = [LONG | {"prompt": prompt, "max_tokens": 1000, "ignore_eos": True} for prompt in ("It was", "a b")]
        others += [fields | SAMPLED for fields in others]
        with Server(2, "--restarts", 5) as server:
            expected = [server.text(**fields) for fields in others]
            with ThreadPoolExecutor(8) as pool, server.stream(**ENDLESS) as chunks:
                next(chunks)
                texts = [pool.submit(server.text, **fields) for fields in others[:2]]
                deadly = pool.submit(server.request, "POST", "/v1/completions", dict(prompt=self.DEADLY))
                texts += [pool.submit(server.text, **fields) for fields in others[2:]]
                status, _, body = deadly.result(serve_test.PATIENCE_S)
                self.assertEqual(status, 500)
                self.assertIn("the ranks died 6 times in a row before this request", json.loads(body)["error"]["message"])
                self.assertEqual([text.result(serve_test.PATIENCE_S) for text in texts], expected)
            self.assertEqual(len(server.logged("the ranks are lost")), 6)
            self.assertEqual(server.text(**others[0]), expected[0])
            self.assertEqual(server.end(), 0)


if __name__ == "__main__":
    serve_test.ARGS.foe = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
