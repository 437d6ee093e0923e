#!/usr/bin/env python3
"""bench/peers: what is in the table of made times, and run.py with foe alone on a shipped model. Standard library only.

    python3 tests/bench/peers_test.py build/foe
"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "bench" / "peers"
sys.path.append(str(PEERS))
import points  # noqa: E402
import report  # noqa: E402

FOE = None
PREFILL, DECODE = points.prefill_point(100), points.decode_point(2, 128)
# A dense model: 1,000 weights in a head of 2 and one layer of 998 bytes.
CONFIG = {"num_hidden_layers": 1, "num_key_value_heads": 0, "num_attention_heads": 1, "head_dim": 1, "hidden_size": 1, "vocab_size": 1,
          "intermediate_size": 1}  # fmt: skip
PARTS = {"attention": 400, "experts": 598, "head": 2}
LIMITS = {"read_bytes_per_second": 1e4, "flops_per_second": 1e9, "dots_per_second": 1e9}


def measured(prefill_s: list[float], decode_s: list[float]) -> dict:
    return {"first_token_s": 1.0, "peak_bytes": 5e6, "points": [PREFILL | {"seconds": prefill_s}, DECODE | {"seconds": decode_s}]}


def result() -> dict:
    systems = [{"name": name, "peer": name, "parts": PARTS, "arithmetic": "f32"} for name in ("foe", "slow", "quick", "broken")]
    no_prefill = {"first_token_s": 3.0, "peak_bytes": 7e6, "points": [PREFILL | {"cannot": "a reason"}, DECODE | {"seconds": [0.4]}]}
    both = {"broken": {"failed": "no file"}, "slow": measured([4.0], [2.0])}
    return {"title": "a model", "threads": 2, "config": CONFIG, "points": [PREFILL, DECODE], "systems": systems, "rounds": [
        {"limits": dict(LIMITS), "others": 0.0, "systems": both | {"foe": measured([1.0], [0.2]), "quick": no_prefill}},
        {"limits": dict(LIMITS), "others": 0.5, "systems": both | {"foe": measured([1.0, 2.0, 2.0], [0.1]), "quick": no_prefill}}]}


class Table(unittest.TestCase):
    def test_points(self):
        self.assertEqual(points.decode_load("1,4@8192"), points.Decode([1, 4], 8192))
        self.assertEqual(points.decode_load("1"), points.Decode([1], 128))
        self.assertEqual([report.point_name(point) for point in points.all_points([2048], [points.decode_load("1,4@8192")])],
                         ["prefill 2,048", "decode 1 at 8,192", "decode 4 at 8,192"])

    def test_speeds(self):
        compared = result()
        report.compare(compared)
        foe, _, quick, broken = compared["systems"]
        # 100 tokens in 1, 1, 2 and 2 s; the rounds' medians are 1 and 2 s.
        self.assertAlmostEqual(foe["speeds"]["prefill 100"]["tokens_per_s"], 100 / 1.5)
        self.assertEqual((foe["speeds"]["prefill 100"]["least"], foe["speeds"]["prefill 100"]["most"]), (50, 100))
        # Reading 1,000 bytes takes 0.1 s, which is half of one round's time and all of the other's.
        self.assertAlmostEqual(foe["speeds"]["decode 2"]["share_of_limit"], 0.75)
        self.assertEqual(list(quick["speeds"]), ["decode 2"])
        self.assertEqual(broken["speeds"], {})

    def test_table(self):
        compared = result()
        report.compare(compared)
        lines = report.table(compared).splitlines()
        self.assertIn("| foe / strongest peer | 2.67 (2.00-4.00) slow | 2.67 (2.00-4.00) quick | | | |", lines)
        self.assertIn("| broken | - | - | - | - | 0.00 |", lines)
        self.assertIn("- quick: no prefill 100: a reason", lines)
        self.assertEqual(lines.count("- broken: no file"), 1)
        self.assertIn("other processes took 50 % of the processors", "\n".join(lines))

    def test_bytes_of_experts(self):
        config = CONFIG | {"num_experts": 4, "num_experts_per_tok": 1}
        self.assertAlmostEqual(report.decode_bytes(config, PARTS, 2, 0), 402 + 598 * (1 - (3 / 4) ** 2))


class Run(unittest.TestCase):
    def test_foe_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            done = subprocess.run([sys.executable, PEERS / "run.py", folder, "--gguf", ROOT / "models" / "foe-8m", "--peer", "foe",
                                   "--foe", FOE, "--prefill", "8,600", "--decode", "1,2@4", "--decode", "1@8", "--rounds", "1", "--threads", "1",
                                   "--seconds", "0", "--repetitions", "2", "--json", out], capture_output=True, text=True, timeout=120)  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            found = json.loads(out.read_text("utf-8"))["comparisons"][0]
        names = ["prefill 8", "decode 1 at 4", "decode 2 at 4", "decode 1 at 8"]
        self.assertEqual(sorted(found["systems"][0]["speeds"]), sorted(names))
        self.assertIn("- foe: no prefill 600: the model's context is 512 positions", done.stdout)
        self.assertGreater(found["rounds"][0]["systems"]["foe"]["peak_bytes"], 9e6)  # its weights
        self.assertIn("| foe |", done.stdout)


if __name__ == "__main__":
    FOE = Path(sys.argv.pop(1)).resolve()
    unittest.main()
