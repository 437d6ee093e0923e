#!/usr/bin/env python3
"""What `foe serve` meets that no client did: blocked signals, a log that nobody reads, folders and handles that are gone.

    tests/server/circumstances_test.py build/foe

Waiting has limits, but no test asserts that something was fast.
"""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import serve_test
from serve_test import LONG, Server, setUpModule, tearDownModule, wait_until  # noqa: F401


def kill_ranks(server):
    for pid in server.ranks():
        os.kill(pid, signal.SIGKILL)


class Signals(unittest.TestCase):

    def start(self, *before):
        """A server behind a program that changes what it inherits."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        script = folder / "foe"
        script.write_text(f'#!/bin/sh\nexec {" ".join(before)} {serve_test.ARGS.foe} "$@"\n')
        script.chmod(0o755)
        self.enterContext(mock.patch.object(serve_test.ARGS, "foe", str(script)))
        return Server(1)

    def test_signals_that_the_parent_has_blocked(self):
        with self.start("env", "--block-signal") as server:
            expected = server.text(**LONG)
            kill_ranks(server)
            self.assertEqual(server.text(**LONG), expected)
            self.assertEqual(server.end(signal.SIGTERM), 0)

    def test_a_parent_that_ignores_the_ends_of_children(self):
        with self.start("env", "--ignore-signal=CHLD") as server:
            expected = server.text(**LONG)
            kill_ranks(server)
            self.assertEqual(server.text(**LONG), expected)
            self.assertEqual(server.end(signal.SIGTERM), 0)

    def test_a_terminal_that_goes_away_drains(self):
        with Server(1, "--drain-seconds", 600) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                server.process.send_signal(signal.SIGHUP)
                wait_until(lambda: server.logged("no new requests"), "draining")
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)
            self.assertEqual(server.process.wait(serve_test.PATIENCE_S), 0)

    def test_not_under_nohup(self):
        with self.start("env", "--ignore-signal=HUP") as server:
            server.process.send_signal(signal.SIGHUP)
            self.assertEqual(server.request("GET", "/health_generate")[0], 200)
            self.assertEqual(server.logged("no new requests"), [])


class Log(unittest.TestCase):

    def test_a_reader_that_stops(self):
        """Once, all of the server stood still when the pipe was full. The ranks' end is printed there, too."""
        read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        with Server(2) as server:
            expected = server.text(**LONG)
        command = [serve_test.ARGS.foe, "serve", str(serve_test.MODEL), "--ranks", "2", "--threads", "1", "--port", "0"]
        process = subprocess.Popen(command, stderr=write_end)
        os.close(write_end)
        log = b""
        while b"listening on" not in log or not log.endswith(b"\n"):
            log += os.read(read_end, 4096)
        port = int(log.split(b"listening on http://127.0.0.1:")[1].split()[0])
        quiet = Server.__new__(Server)  # to ask it, without its reader of the log
        quiet.process, quiet.port, quiet.seen, quiet.log = process, port, set(), []
        refused = 0
        for _ in range(300):  # each leaves a line, of 300 bytes
            refused += quiet.request("POST", "/v1/completions", {"model": "x" * 200, "prompt": "a"})[0] == 404
        self.assertEqual(refused, 300)
        self.assertEqual(quiet.text(**LONG), expected)
        kill_ranks(quiet)
        self.assertEqual(quiet.text(**LONG), expected)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(serve_test.PATIENCE_S), 0)
        os.close(read_end)


class Memory(unittest.TestCase):

    def test_a_request_that_there_is_no_memory_for_ends_alone(self):
        with Server(1) as server:
            expected = server.text(prompt="It was", max_tokens=20)
            size = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            _, most = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
            resource.prlimit(server.process.pid, resource.RLIMIT_AS, (size + (4 << 20), most))
            body = json.dumps({"prompt": [1] * 1_300_000})
            failed = 0
            for _ in range(3):
                with contextlib.suppress(OSError, serve_test.http.client.HTTPException):
                    failed += server.request("POST", "/v1/completions", body)[0] >= 400
                    continue
                failed += 1
            resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, most))
            self.assertEqual(failed, 3)
            self.assertEqual(server.text(prompt="It was", max_tokens=20), expected)


class Places(unittest.TestCase):

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(dir="/tmp")))

    def test_tmpdir_that_will_not_do(self):
        long = self.folder / ("t" * 120)
        long.mkdir()
        for place in (long, self.folder / "missing"):
            for ranks in (1, 2):
                with self.subTest(place=place, ranks=ranks), mock.patch.dict(os.environ, {"TMPDIR": str(place)}):
                    with Server(ranks) as server:
                        self.assertEqual(server.request("GET", "/health_generate")[0], 200)

    def test_tmpdir_that_goes_away(self):
        place = self.folder / "tmp"
        place.mkdir()
        with mock.patch.dict(os.environ, {"TMPDIR": str(place)}), Server(2) as server:
            expected = server.text(**LONG)
            shutil.rmtree(place)
            kill_ranks(server)
            self.assertEqual(server.text(**LONG), expected)

    def test_weights_that_are_away_for_a_while(self):
        model = self.folder / "tiny"
        shutil.copytree(serve_test.MODEL, model)
        weights = model / "model.safetensors"
        with Server(1, model=model) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                weights.rename(self.folder / "away")
                kill_ranks(server)
                wait_until(lambda: len(server.logged("the ranks are lost")) >= 4, "tries without weights")
                (self.folder / "away").rename(weights)
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)
            self.assertTrue(server.logged(f"{model}: expected model.safetensors or"))
            self.assertTrue(server.logged("(the next try in 1 s)"), "pauses grow")

    def test_a_folder_that_is_replaced(self):
        """Its weights are others: what was begun with the old ones ends with an error, and not as a mixture."""
        model, other = self.folder / "tiny", self.folder / "other"
        shutil.copytree(serve_test.MODEL, model)
        shutil.copytree(serve_test.MODEL, other)
        with open(other / "model.safetensors", "r+b") as file:
            file.seek(-5, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-5, os.SEEK_END)
            file.write(bytes([byte ^ 1]))
        with Server(2, model=model) as server:
            with server.stream(**LONG | {"max_tokens": 4000, "ignore_eos": True}) as chunks:
                next(chunks)
                model.rename(self.folder / "old")
                other.rename(model)
                kill_ranks(server)
                *_, last = chunks
            self.assertEqual(last["error"]["code"], 500)
            self.assertIn("other contents than when the server was started", last["error"]["message"])
            self.assertEqual(server.process.wait(serve_test.PATIENCE_S), 1)

    def test_a_folder_that_is_replaced_by_its_like(self):
        model, other = self.folder / "tiny", self.folder / "other"
        shutil.copytree(serve_test.MODEL, model)
        shutil.copytree(serve_test.MODEL, other)
        with Server(1, model=model) as server:
            expected = server.text(**LONG)
            model.rename(self.folder / "old")
            other.rename(model)
            kill_ranks(server)
            self.assertEqual(server.text(**LONG), expected)

    def test_handles_that_are_short_for_a_while(self):
        with Server(1) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                pid = server.process.pid
                before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
                kill_ranks(server)
                wait_until(lambda: server.logged("Too many open files (the next try in"), "a try without handles")
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)


if __name__ == "__main__":
    serve_test.ARGS.foe = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
