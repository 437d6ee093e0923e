"""What drivers of engines share: which points they measure, with which flags, and the JSON that they write.

A driver is a script `drive_NAME.py MODEL --json OUT` with the flags of `parser()`. It writes

    {"version", "first_token_s", "peak_bytes", "points": [{"load", "sequences", "tokens", "positions", "seconds": [...]}]}

where a point that the engine cannot measure has "cannot", the reason, in the place of "seconds". Points of prefill are one prompt of
`tokens`; those of decode are steps in which `sequences` streams bring one token each, behind `positions` tokens. Tokens are random,
and a step ends when the logits of each sequence's last token are there (or the token chosen from them, where an engine gives
nothing else).
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import NamedTuple

FIRST_PROMPT = 16  # tokens of the prompt whose first token ends the start, as in foe bench engine


class Decode(NamedTuple):
    streams: list[int]
    positions: int  # that each stream has before its first step


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")] if text else []


def decode_load(text: str) -> Decode:
    """Reads "1,4,16@128"."""
    streams, _, positions = text.partition("@")
    return Decode(numbers(streams), int(positions or 128))


def prefill_point(tokens: int) -> dict:
    return {"load": "prefill", "sequences": 1, "tokens": tokens, "positions": 0}


def decode_point(streams: int, positions: int) -> dict:
    return {"load": "decode", "sequences": streams, "tokens": 1, "positions": positions}


def all_points(prefill: list[int], decode: list[Decode]) -> list[dict]:
    return [prefill_point(tokens) for tokens in prefill] + [
        decode_point(streams, load.positions) for load in decode for streams in load.streams]


def positions_of(point: dict, repetitions: int) -> int:
    """Returns the positions that a sequence of the point needs, with a step that does not count."""
    return point["tokens"] if point["load"] == "prefill" else point["positions"] + 1 + repetitions


def add_measuring_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefill", type=numbers, default=numbers("128,512,2048"), metavar="TOKENS,...",
                        help="tokens of a prompt that runs alone (default: 128,512,2048)")
    parser.add_argument("--decode", type=decode_load, action="append", metavar="STREAMS,...@POSITIONS",
                        help="streams that decode together, and what each has before; may be given again (default: 1,4,16@128)")
    parser.add_argument("--seconds", type=float, default=2, help="time for each point (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=64, help="most steps of a point (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the engine (default: %(default)s)")


def parser(description: str) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("model", type=Path, help="what the engine reads")
    result.add_argument("--json", type=Path, required=True, help="file to write")
    add_measuring_flags(result)
    return result


def parse(description: str, add_flags=lambda _: None) -> argparse.Namespace:
    own = parser(description)
    add_flags(own)
    flags = own.parse_args()
    flags.decode = flags.decode if flags.decode is not None else [decode_load("1,4,16@128")]
    return flags


def as_arguments(prefill: list[int], decode: list[Decode], flags) -> list[str]:
    """Returns the flags with which a driver measures these points."""
    loads = [f"{','.join(map(str, load.streams))}@{load.positions}" for load in decode if load.streams]
    return ["--prefill", ",".join(map(str, prefill)), *(f"--decode={load}" for load in loads or [""]), "--seconds", str(flags.seconds),
            "--repetitions", str(flags.repetitions), "--threads", str(flags.threads)]


def repeat(flags, run) -> list[float]:
    """Calls `run(0)`, `run(1)`, ..., which return seconds, until they have taken the time of a point."""
    seconds = []
    while sum(seconds) <= flags.seconds and len(seconds) < flags.repetitions:
        seconds.append(run(len(seconds)))
    return seconds


def timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def process_memory(field: str, process: int | str = "self") -> int:
    """Returns bytes of a process, from /proc: VmRSS now, VmHWM at most."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text("utf-8").splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


class RandomTokens:
    def __init__(self, vocabulary: int):
        self.vocabulary, self.generator = vocabulary, random.Random(0)

    def draw(self, count: int) -> list[int]:
        return [self.generator.randrange(self.vocabulary) for _ in range(count)]


def write(path: Path, result: dict) -> None:
    path.write_text(json.dumps(result), "utf-8")
