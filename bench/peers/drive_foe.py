"""Drives foe: `foe bench engine` for each number of positions, and its points in the JSON of points.py.

    drive_foe.py MODEL --json OUT --foe build/foe [--option=--quantize=int8 ...]
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import points


def engine(flags, prefill: list[int], load: points.Decode) -> tuple[dict, float, int]:
    """Returns what one process measured, seconds from its start to its first token, and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "points.json"
        # It measures one point of each kind at least: what was not asked for is a step of one token.
        lists = {"--prefill": prefill or [1], "--decode": load.streams or [1]}
        command = [flags.foe, "bench", "engine", flags.model, *flags.option, "--prompt-len", load.positions, "--json", out,
                   "--seconds", flags.seconds, "--repetitions", flags.repetitions, "--threads", flags.threads]
        for name, values in lists.items():
            command += [name, ",".join(map(str, values))]
        start = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        first_token_s = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or not line.startswith("first token"):
            raise SystemExit(f"drive_foe: foe bench engine ended with {process.returncode}")
        return json.loads(out.read_text("utf-8")), first_token_s, 1024 * usage.ru_maxrss


def wanted(prefill: list[int], load: points.Decode, measured: list[dict]) -> list[dict]:
    found = {(point["load"], point["sequences"], point["tokens"]): point["seconds"] for point in measured}
    return [point | {"seconds": found[point["load"], point["sequences"], point["tokens"]]}
            for point in points.all_points(prefill, [load])]


def main() -> None:
    flags = points.parse(__doc__, lambda parser: (
        parser.add_argument("--foe", type=Path, default=Path("build/foe"), help="the program (default: %(default)s)"),
        parser.add_argument("--option", action="append", default=[], help="a further flag of foe, as in --option=--pin")))
    result = {"first_token_s": None, "peak_bytes": 0, "points": []}
    loads = [load for load in flags.decode if load.streams] or [points.Decode([], 128)]
    for i, load in enumerate(loads):
        prefill = [] if i else flags.prefill
        measured, first_token_s, peak = engine(flags, prefill, load)
        result["points"] += wanted(prefill, load, measured["points"])
        result["first_token_s"] = result["first_token_s"] or first_token_s
        result["peak_bytes"] = max(result["peak_bytes"], peak)
        result["system"] = measured["instruction_set"]
    points.write(flags.json, result)


if __name__ == "__main__":
    main()
