#!/usr/bin/env python3
"""Kills or stops one rank while the ranks of a job exchange, and looks at how the others end.

    tests/dist/faults_test.py build/foe build/tests/comm_faults

A rank that is stopped says nothing and closes nothing, like one on a host that is cut off: the others have only the clock.
One that is killed is noticed by mpirun, which ends the job. Told to let the others go on (--enable-recovery), as a launcher
may, it leaves it to them to notice; its own exit status then says nothing.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "oracle"))
from random_model import write_random_model, make_config  # noqa: E402

FOE = COMM_FAULTS = None
TIMEOUT = "1"  # seconds, of the ranks
PATIENCE_S = 120  # for what must come; only ends a test that fails
CONTEXT = 32768
JOBS = 6  # at a time: they mostly wait
# By name how many tokens a prompt has, of one byte each, and the flags with which its answer takes seconds to come.
PREFILLS = {"prefill": (8000, ["--chunk", "1"]), "prefill in halves": (30000, ["--chunk", "256", "--overlap"])}
# The collectives, and what their waits are called. Who only sends into a gather waits in the broadcast behind it.
COLLECTIVES = {
    "broadcast": ["a broadcast"],
    "broadcast-long": ["a broadcast"],
    "sum": ["a sum"],
    "sum-long": ["a sum"],
    "gather": ["a gather", "a broadcast"],
    "all-to-all": ["an all-to-all"],
    "all-to-all-long": ["an all-to-all"],
    "message": ["a message"],
    "message-long": ["a message"],
}


def mpirun(ranks, *flags):
    return ["mpirun", "-n", str(ranks), *flags, "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
            "--mca", "pml", "ob1", "--mca", "btl", "self,vader", "--mca", "plm", "isolated"]


def processes_with(word):
    """Returns the ids of the processes, zombies apart, that have this among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def rank_of(pid):
    for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if item.startswith(b"OMPI_COMM_WORLD_RANK="):
            return int(item.split(b"=")[1])
    return None  # mpirun


class FaultsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        cls.work = Path(tempfile.mkdtemp(prefix="foe-faults-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.work)
        for residual in "shared", "federated":
            config = make_config(vocab_size=561, max_position_embeddings=CONTEXT, residual=residual, expert_groups=4)
            write_random_model(cls.work / residual, config, seed=5)
            shutil.copy(TESTS / "golden/tokenizer/gpt2.json", cls.work / residual / "tokenizer.json")

    def check_all(self, check, cases):
        with ThreadPoolExecutor(JOBS) as pool:
            done = [(case, pool.submit(check, *case)) for case in cases]
        for case, result in done:
            with self.subTest(case=case):
                result.result()

    def expect_none_left(self, word):
        end = time.monotonic() + PATIENCE_S
        while left := processes_with(word):
            self.assertLess(time.monotonic(), end, f"left behind: {left}")
            time.sleep(0.02)

    def test_every_rank_names_the_collective_in_which_it_waited_in_vain(self):
        self.check_all(self.hit_in_collective, itertools.product(COLLECTIVES, ("shared", "mpi"), ("KILL", "STOP")))

    def hit_in_collective(self, collective, memory, hit):
        folder = tempfile.mkdtemp(dir=self.work)
        launcher = mpirun(3, *(["--enable-recovery"] if hit == "KILL" else []))
        job = subprocess.run([*launcher, COMM_FAULTS, collective, memory, hit, TIMEOUT, folder], capture_output=True,
                             text=True, timeout=PATIENCE_S)
        if hit == "STOP":
            self.assertNotEqual(job.returncode, 0)
        noticed = [line for line in job.stdout.splitlines() if line.startswith("noticed:")]
        survivors = (1, 2) if collective.startswith("broadcast") else (0, 1)
        for rank in survivors:
            lines = [line for line in noticed if f"rank {rank}" in line.split(":")[1]]
            self.assertEqual(len(lines), 1, job.stdout + job.stderr)
            self.assertIn(f"{TIMEOUT} s", lines[0])
            self.assertTrue(any(name in lines[0] for name in COLLECTIVES[collective]), lines[0])
        self.expect_none_left(folder)

    def test_generate_ends_with_an_error_whoever_is_hit_and_when(self):
        cases = itertools.product(("tp", "foe", "ep", "pp"), (*PREFILLS, "decode"), (0, 1), (signal.SIGKILL, signal.SIGSTOP))
        # The micro-batches of pp are not halves.
        self.check_all(self.hit_generate, (case for case in cases if case[:2] != ("pp", "prefill in halves")))

    def hit_generate(self, plan, phase, victim, hit):
        model = tempfile.mktemp(dir=self.work)  # a name of its own, to know the processes by
        os.symlink(self.work / ("federated" if plan == "foe" else "shared"), model)
        length, flags = PREFILLS.get(phase, (3, []))
        prompt = "x" * length
        command = [*mpirun(2), FOE, "generate", model, "--plan", plan, "--threads", "1", "--prompt", prompt, *flags,
                   "--max-tokens", str(CONTEXT - length), "--ignore-eos", "--timeout", TIMEOUT]
        errors = self.work / f"{plan}-{phase}-{victim}-{hit.name}"
        with open(errors, "w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file) as job:
            try:
                # The prompt appears when all is loaded, and more when the first token is there.
                job.stdout.read(len(prompt) + (0 if phase in PREFILLS else 40))
                ranks = {rank_of(pid): pid for pid in processes_with(model)}
                os.kill(ranks[victim], hit)
                text, _ = job.communicate(timeout=PATIENCE_S)
            finally:
                job.kill()
        said = errors.read_text()
        self.assertNotEqual(job.returncode, 0)
        if phase in PREFILLS:
            self.assertEqual(text, b"", "the prompt had ended")
        if hit == signal.SIGSTOP:
            self.assertRegex(said, f"rank {1 - victim} in an? [a-z-]+: heard nothing from rank {victim} for {TIMEOUT} s")
        else:
            self.assertIn("signal 9", said)
        self.expect_none_left(model)


if __name__ == "__main__":
    COMM_FAULTS = sys.argv.pop(2)
    FOE = sys.argv.pop(1)
    unittest.main(verbosity=2)
