#!/usr/bin/env python3
"""Hosts that go away and come back, under `foe serve --hosts`: all of them are this machine, reached through a remote shell
of our own that can be told to hang.

    tests/server/hosts_test.py build/foe
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import serve_test
from serve_test import LONG, Server, command_of, descendants, wait_until

HERE = socket.gethostname()
# Open MPI tells nodes apart by their names.
AGENT = """#!/usr/bin/env bash
while [[ ${1:-} == -* ]]; do case $1 in -l | -p | -o) shift 2 ;; *) shift ;; esac; done
[[ -e $FOE_TEST_HOSTS/$1.hangs ]] && exec sleep 1000
exec unshare --uts sh -c "hostname $1 && ${*:2}"
"""


def setUpModule():
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode != 0:
        print("SKIPPED: this machine does not let us give a process a host name of its own")
        sys.exit(77)
    serve_test.setUpModule()


def tearDownModule():
    serve_test.tearDownModule()


class Hosts(unittest.TestCase):

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        agent = self.folder / "agent"
        agent.write_text(AGENT)
        agent.chmod(0o755)
        os.environ.update({"FOE_TEST_HOSTS": str(self.folder), "OMPI_MCA_plm": "rsh", "OMPI_MCA_plm_rsh_agent": str(agent),
                           "OMPI_MCA_plm_rsh_no_tree_spawn": "1", "OMPI_MCA_orte_keep_fqdn_hostnames": "1"})

    def hang(self, host):
        """Nothing that is started there answers."""
        (self.folder / f"{host}.hangs").touch()

    def come_back(self, host):
        (self.folder / f"{host}.hangs").unlink()

    def server(self, hosts, *flags):
        ranks = sum(int(host.split(":")[1]) for host in hosts.split(","))
        return Server(ranks, "--hosts", hosts, "--hang-timeout", 2, "--restarts", 20, *flags)

    def restart(self, server, times):
        for pid in server.ranks()[-1:]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(server.logged("the ranks are up again")) == times, "the ranks")

    def test_a_dead_host_is_left_out_and_taken_back(self):
        with self.server(f"{HERE}:1,n1:1", "--host-patience", 3) as server:
            expected = server.text(**LONG)
            with server.stream(**LONG) as chunks:
                text = next(chunks)["choices"][0]["text"]
                self.hang("n1")
                self.restart(server, 1)
                text += "".join(chunk["choices"][0]["text"] for chunk in chunks)
            self.assertEqual(text, expected)
            self.assertTrue(server.logged("left out, as there was no answer"))
            self.assertTrue(server.logged("1 ranks instead of 2"))
            self.assertEqual(len(server.ranks()), 1)
            self.come_back("n1")
            self.restart(server, 2)
            self.assertTrue(server.logged("n1 answers again"))
            self.assertEqual(len(server.ranks()), 2)
            self.assertEqual(server.text(**LONG), expected)
            self.assertEqual(server.end(), 0)

    def test_a_host_that_is_back_soon_is_waited_for(self):
        with self.server(f"{HERE}:1,n1:1", "--host-patience", 600) as server:
            expected = server.text(**LONG)
            self.hang("n1")
            os.kill(server.ranks()[-1], signal.SIGKILL)
            wait_until(lambda: server.logged("the ranks are lost"), "the loss")
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.text, **LONG)
                time.sleep(7)  # longer than one question to the host
                self.assertEqual(server.request("GET", "/health")[0], 503)
                self.come_back("n1")
                self.assertEqual(answer.result(serve_test.PATIENCE_S), expected)
            self.assertEqual(len(server.ranks()), 2)
            self.assertFalse(server.logged("left out"))

    def test_a_server_that_waits_for_a_host_can_be_ended(self):
        for signals in (1, 2):
            with self.server(f"{HERE}:1,n1:1", "--host-patience", 600) as server:
                self.hang("n1")
                with server.stream(**LONG | {"max_tokens": 4000}) as chunks:
                    next(chunks)
                    os.kill(server.ranks()[-1], signal.SIGKILL)
                    wait_until(lambda: server.logged("the ranks are lost"), "the loss")
                    wait_until(lambda: [p for p in descendants(server.process.pid) if b"sleep" in command_of(p)],
                               "a question to the host")
                    if signals == 2:
                        server.process.terminate()
                        wait_until(lambda: server.logged("no new requests"), "draining")
                    self.assertEqual(server.end(), signals - 1)
                    *_, last = chunks
                    self.assertEqual(last["error"]["code"], 503)
                self.come_back("n1")

    def test_a_host_that_hangs_at_the_start_is_a_failure(self):
        self.hang("n1")
        server = self.server(f"{HERE}:1,n1:1", "--host-patience", 1)
        self.assertEqual(server.process.wait(serve_test.PATIENCE_S), 1)
        server.reader.join(serve_test.PATIENCE_S)
        self.assertTrue(server.logged("the ranks died before they were ready: no answer for"))
        self.assertTrue(server.logged("from n1"))
        server.process.stderr.close()


if __name__ == "__main__":
    serve_test.ARGS.foe = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
