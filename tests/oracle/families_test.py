#!/usr/bin/env python3
"""Compares foe with `transformers` for every family of models that it loads.

    tests/oracle/families_test.py build/foe [--mpirun] [-k NAME] [--models FOLDER] [--report FILE]

tests/golden/families/ has a small random model of each, and the logits that transformers gives for it
(tools/make_family_goldens.py); --models takes other folders of this kind. One rank must be within 2e-5 of the largest
logit, and all else must give its bits: the prompt in chunks and, with --mpirun, --plan tp on 4 ranks, (of models with
experts) ep on 2, and pp on 2. --report writes what was compared, for docs. Needs NumPy.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
import safetensors_io

GOLDEN = Path(__file__).parent.parent / "golden" / "families"
# The forward pass of f32 numbers: as in logits_test.py.
TOLERANCE = 2e-5
TIMEOUT_SECONDS = 120
ARGS = argparse.Namespace()
RESULTS = {}


def run_foe(model, tokens, output, *flags, ranks=1):
    """Runs `foe logits` and returns the file that it wrote; raises with what it said if it fails."""
    list_of_tokens = output.with_suffix(".tokens")
    list_of_tokens.write_text(",".join(map(str, tokens.tolist())) + "\n")
    command = [ARGS.foe, "logits", model, "--tokens", f"@{list_of_tokens}", "--output", output, "--threads", "1", *flags]
    environment = dict(os.environ)
    if ranks > 1:
        # More ranks than cores, as root in a container; a rank that waits must not keep the core from those that work.
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        command = ["mpirun", "-n", ranks, "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
                   *command]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True,
                          timeout=TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return output


class FamiliesTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="foe_families_"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.runs = 0

    def logits_file(self, model, tokens, *flags, ranks=1):
        self.runs += 1
        return run_foe(model, tokens, self.folder / f"{self.runs}.safetensors", *flags, ranks=ranks)

    def assert_close(self, path, expected_PV, positions, what):
        actual_PV = safetensors_io.read(path)["logits"][positions]
        by_position_P = np.max(np.abs(actual_PV - expected_PV), axis=1) / np.max(np.abs(expected_PV))
        difference = np.max(by_position_P)
        if not difference <= TOLERANCE:  # and not ">": a NaN fails
            wrong = positions[~(by_position_P <= TOLERANCE)].tolist()
            self.fail(f"{what}: off by {difference:.2e} of the largest logit, not {TOLERANCE:.0e}; positions {wrong}")
        return float(difference)

    def check(self, model):
        expected = safetensors_io.read(model / "expected.safetensors")
        config = json.loads((model / "config.json").read_text())
        names = "num_experts_per_tok", "num_experts", "num_local_experts", "moe_topk", "moe_num_experts"
        experts = any(name in config for name in names)
        plans = [("tp", 4)] + ([("ep", 2)] if experts else []) + [("pp", 2)]
        result = {"model_type": config["model_type"], "plans": sorted({plan for plan, _ in plans})}
        for text, chunk in ("", 7), ("long_", 500):
            if text + "tokens" not in expected:
                continue
            tokens, positions = expected[text + "tokens"], expected[text + "positions"]
            whole = self.logits_file(model, tokens)
            difference = self.assert_close(whole, expected[text + "logits"], positions, f"{len(tokens)} tokens")
            result[f"{len(tokens)} tokens"] = difference
            print(f"{len(tokens)} tokens: off by {difference:.1e}", end=" ... ", flush=True)
            chunked = self.logits_file(model, tokens, "--chunk", chunk)
            self.assertEqual(chunked.read_bytes(), whole.read_bytes(), f"{len(tokens)} tokens, --chunk {chunk}")
            if ARGS.mpirun and not text:
                for plan, ranks in plans:
                    path = self.logits_file(model, tokens, "--plan", plan, ranks=ranks)
                    self.assertEqual(path.read_bytes(), whole.read_bytes(), f"{plan} on {ranks} ranks")
        RESULTS[model.name] = result


def main():
    parser = argparse.ArgumentParser(description="Compare foe with transformers, family by family.")
    parser.add_argument("foe", help="the binary")
    parser.add_argument("--mpirun", action="store_true", help="run under other plans on 2 and 4 ranks, too")
    parser.add_argument("--models", type=Path, default=GOLDEN, help="folder of model folders")
    parser.add_argument("--report", type=Path, help="JSON file to write: what was compared, by model")
    _, others = parser.parse_known_args(namespace=ARGS)
    for path in sorted(ARGS.models.glob("*/expected.safetensors")):
        setattr(FamiliesTest, f"test_{path.parent.name}", lambda self, model=path.parent: self.check(model))
    program = unittest.main(argv=["families_test.py", "-v", *others], exit=False)
    if ARGS.report:
        ARGS.report.write_text(json.dumps(RESULTS, indent=2, sort_keys=True) + "\n")
    return 0 if program.result.wasSuccessful() and program.result.testsRun > 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
