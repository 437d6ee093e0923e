#!/usr/bin/env python3
"""Ranks that should not have been started together, or not in this way: each says so, and how to do it.

    tests/dist/launchers_test.py build/foe
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MODELS = Path(__file__).parents[2] / "models"
MODEL = MODELS / "foe-8m"
PATIENCE_S = 120
FOE = None
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", "--mca", "pml", "ob1",
          "--mca", "btl", "self,vader", "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "plm", "isolated"]
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(command, **variables):
    return subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=PATIENCE_S, env=os.environ | ROOT | variables)


def generate(model, *flags):
    return [FOE, "generate", model, "--prompt", "It was", "--max-tokens", 8, "--threads", 1, *flags]


class Launchers(unittest.TestCase):

    def test_processes_that_are_alone_to_our_mpi(self):
        """As under MPICH's mpiexec, or srun without --mpi=pmix: it would be the same job, several times over."""
        for variables in ({"PMI_SIZE": "2", "PMI_RANK": "0"}, {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}):
            with self.subTest(variables=variables):
                result = run(generate(MODEL), **variables)
                self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
                self.assertIn("expected 2 processes that are the ranks of one job", result.stderr)
                command = f"{FOE} generate {MODEL} --prompt 'It was' --max-tokens 8 --threads 1"
                self.assertIn(f"mpirun -n 2 --bind-to none {command}", result.stderr)
                self.assertIn(f"srun --mpi=pmix -n 2 {command}", result.stderr)

    def test_one_process_is_one_rank(self):
        expected = run(generate(MODEL))
        self.assertEqual(expected.returncode, 0, expected.stderr)
        for variables in ({"PMI_SIZE": "1", "PMI_RANK": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}):
            with self.subTest(variables=variables):
                result = run(generate(MODEL), **variables)
                self.assertEqual((result.returncode, result.stdout), (0, expected.stdout), result.stderr)

    def test_our_own_mpirun_counts_first(self):
        """A batch system's variables are there inside of a job of ours, too."""
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                result = run([*MPIRUN, "-n", ranks, *generate(MODEL)], SLURM_STEP_NUM_TASKS="4", PMI_SIZE="4")
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_commands_that_are_one_process(self):
        with tempfile.TemporaryDirectory() as folder:
            commands = {"serve": ["serve", MODEL, "--port", 0],
                        "convert": ["convert", MODEL, f"{folder}/out", "--quantize", "int8"]}
            for name, command in commands.items():
                for variables, launcher in (({}, [*MPIRUN, "-n", 2]), ({"PMI_SIZE": "2"}, [])):
                    with self.subTest(command=name, launcher=launcher[:1]):
                        result = run([*launcher, FOE, *command], **variables)
                        self.assertEqual(result.returncode, 1, result.stderr)
                        self.assertIn(f"foe {name} is one process, but a launcher has started 2", result.stderr)
            self.assertEqual(os.listdir(folder), [])


class Agreement(unittest.TestCase):

    def setUp(self):
        self.other = Path(self.enterContext(tempfile.TemporaryDirectory())) / "other"
        shutil.copytree(MODEL, self.other)

    def together(self, other, *flags):
        return run([*MPIRUN, "-n", 1, *generate(MODEL), ":", "-n", 1, *generate(other, *flags)])

    def assert_named(self, result, *named):
        self.assertNotEqual(result.returncode, 0)
        self.assertEqual(result.stdout, "")
        self.assertIn("rank 1 differs from rank 0 in ", result.stderr)
        for text in named:
            self.assertIn(text, result.stderr)

    def test_equal_copies_run(self):
        alone, together = run(generate(MODEL)), self.together(self.other)
        self.assertEqual((together.returncode, together.stdout), (0, alone.stdout), together.stderr)

    def test_another_configuration(self):
        config = json.loads((self.other / "config.json").read_text())
        config["rope_theta"] = 500000.0
        (self.other / "config.json").write_text(json.dumps(config))
        self.assert_named(self.together(self.other), "config.json's rope_theta (500000.0 instead of ")

    def test_other_weights(self):
        """One bit of one small tensor, whoever of the ranks reads it."""
        file = self.other / "model.safetensors"
        contents = file.read_bytes()
        length, = struct.unpack("<Q", contents[:8])
        header = json.loads(contents[8:8 + length])
        for name in ("model.norm.weight", *re.findall(r'"(model\.layers\.0\.mlp\.experts\.\d+\.down_proj\.weight)"',
                                                      contents[8:8 + length].decode())[::7]):
            with self.subTest(tensor=name):
                at = 8 + length + header[name]["data_offsets"][0] + 4
                file.write_bytes(contents[:at] + bytes([contents[at] ^ 1]) + contents[at + 1:])
                self.assert_named(self.together(self.other), "the weights' digest (")

    def test_other_flags(self):
        for flags, named in ((["--kv-dtype", "int8"], "--kv-dtype (int8 instead of bf16)"),
                             (["--wire", "int8"], "--wire (int8 instead of f32)"),
                             (["--overlap"], "--overlap (on instead of off)"),
                             (["--chunk", 64], "--chunk (64 instead of 512)"),
                             (["--quantize", "int8"], "--quantize (int8 instead of the file's)")):
            with self.subTest(flags=flags):
                self.assert_named(self.together(MODEL, *flags), named)


if __name__ == "__main__":
    FOE = os.path.abspath(sys.argv.pop(1))
    unittest.main()
