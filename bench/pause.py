#!/usr/bin/env python3
"""The pause that clients see when a rank of `foe serve` dies (docs/lab/2026-11-28-pause.md).

    tests/python.sh bench/pause.py MODEL --contexts 256 --streams 1,8,32 --json pause.json

Two ranks serve N streams, each with a prompt of its own. Once all of them stream, one rank is killed with SIGKILL, in turn
the first and the last. A gap is what one stream then waits: from its last token before the death to its first one after it.
Every text must be that of a calm run of the same requests, or the measurement ends with an error. After the calm run
prompts are in the prefix cache, so that streams begin together; a death empties it, so that every context is
computed again, with the tokens that it already has.

A row goes on to --gaps gaps or for --seconds, whichever comes first, and for one death at least. Percentiles are of the
nearest rank: a row of fewer than 100 gaps has its longest one as p99. A death during which this program itself stood still
for --most-stall seconds (a virtual machine that was frozen) is left out and counted.

The parts of the pause are from the server's log, whose lines have milliseconds, as medians: ended (from the kill to the line
that the ranks are lost: noticing it, and mpirun's end), started (from there to the line that they are up again: mpirun, MPI
and loading), and computed (from there to the stream's next token). The log does not tell more apart.
"""

import argparse
import datetime
import json
import math
import os
import random
import re
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/server"))
import serve_test  # noqa: E402
from serve_test import Server, wait_until  # noqa: E402

FIRST_TOKENS = 4  # of every stream, before a rank is killed
LOST, UP = "the ranks are lost", "the ranks are up again"


class Stalls:
    """The longest time in which this program did not run although it wanted to."""

    def __init__(self):
        self.longest = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        last = time.time()
        while True:
            time.sleep(0.01)
            now = time.time()
            self.longest = max(self.longest, now - last - 0.01)
            last = now

    def take(self):
        """Returns the longest one since the last call."""
        longest, self.longest = self.longest, 0.0
        return longest


class Stream:
    """One request: its chunks, and when each of them came, on the clock that the server's log has."""

    def __init__(self, server, fields):
        self.server, self.fields = server, fields
        self.times, self.lines, self.error = [], [], None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        connection = self.server.connect()
        try:
            connection.request("POST", "/v1/completions", json.dumps(self.fields))
            response = connection.getresponse()
            if response.status != 200:
                raise AssertionError(f"{response.status}: {response.read()}")
            while line := response.readline():
                if line.startswith(b"data: {"):
                    self.times.append(time.time())
                    self.lines.append(line)
        except Exception as error:  # the main thread raises it
            self.error = error
        finally:
            connection.close()

    def end(self):
        """Waits for the end; returns text, tokens and why they ended."""
        self.thread.join(serve_test.PATIENCE_S)
        if self.thread.is_alive():
            raise AssertionError(f"a stream has no end after {serve_test.PATIENCE_S} s")
        if self.error:
            raise self.error
        chunks = [json.loads(line[len(b"data: "):]) for line in self.lines]
        if errors := [chunk for chunk in chunks if "error" in chunk]:
            raise AssertionError(f"expected tokens, got {errors[0]}")
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        tokens = [token for choice in choices for token in (choice.get("logprobs") or {}).get("tokens", [])]
        return {"text": "".join(choice["text"] for choice in choices), "tokens": tokens,
                "finish": choices[-1]["finish_reason"]}


def requests(streams, context, args):
    """Sampled, so that texts do not repeat themselves; with logprobs, so that tokens are compared, too."""
    choice = random.Random(f"{args.seed}/{context}")
    return [dict(prompt=[choice.randrange(args.first_id, args.last_id) for _ in range(context)], max_tokens=args.tokens,
                 temperature=1, seed=i, ignore_eos=True, logprobs=0, stream=True) for i in range(streams)]


def time_of(line):
    """When a line of the log was written, in seconds since 1970."""
    found = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})", line)
    return datetime.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S.%f").timestamp()


def calm(server, asked):
    answers = [stream.end() for stream in [Stream(server, fields) for fields in asked]]
    for fields, answer in zip(asked, answers):
        if len(answer["tokens"]) != fields["max_tokens"]:
            raise AssertionError(f"expected {fields['max_tokens']} tokens, got {len(answer['tokens'])}")
    return answers


def death(server, asked, expected, rank):
    """Kills one rank while all stream. Returns the gaps and their parts, in seconds."""
    ups = len(server.logged(UP))
    losts = len(server.logged(LOST))
    victim = server.ranks()[rank]
    streams = [Stream(server, fields) for fields in asked]
    wait_until_soon(lambda: all(len(stream.times) >= FIRST_TOKENS or stream.error for stream in streams))
    killed = time.time()
    os.kill(victim, signal.SIGKILL)
    answers = [stream.end() for stream in streams]
    for i, (answer, calm_one) in enumerate(zip(answers, expected)):
        if answer != calm_one:
            raise AssertionError(f"stream {i}: expected {calm_one}, got {answer}")
    wait_until(lambda: len(server.logged(UP)) > ups, "the ranks")
    (lost,), (up,) = server.logged(LOST)[losts:], server.logged(UP)[ups:]
    lost, up = time_of(lost), time_of(up)
    result = []
    for stream in streams:
        before = [moment for moment in stream.times if moment < up]
        after = [moment for moment in stream.times if moment >= up]
        if not after or not before or before[-1] > lost + 0.25:
            raise AssertionError("a stream had ended before the death: use more --tokens")
        result.append({"rank": rank, "gap": after[0] - before[-1], "ended": lost - killed, "started": up - lost,
                       "computed": after[0] - up})
    return result


def wait_until_soon(condition):
    """As wait_until(), but streams of few tokens end soon."""
    end = time.monotonic() + serve_test.PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("expected all streams to have tokens, but one had none in time: use more --tokens")
        time.sleep(0.001)


def percentile(values, percent):
    """Of the nearest rank."""
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def measure(server, streams, context, args):
    asked = requests(streams, context, args)
    expected = calm(server, asked)
    start = time.monotonic()
    gaps, deaths, left_out, longest_stall, stalls = [], 0, 0, 0.0, Stalls()
    while deaths == 0 or (len(gaps) < args.gaps and time.monotonic() - start < args.seconds):
        stalls.take()
        found = death(server, asked, expected, (0, args.ranks - 1)[deaths % 2])
        stall = stalls.take()
        if stall >= args.most_stall:
            left_out += 1
            continue
        longest_stall = max(longest_stall, stall)
        gaps += found
        deaths += 1
    waits = [gap["gap"] for gap in gaps]
    parts = {part: statistics.median(gap[part] for gap in gaps) for part in ("ended", "started", "computed")}
    return {"context": context, "streams": streams, "deaths": deaths, "left_out": left_out,
            "longest_stall": longest_stall, "gaps": len(gaps), "p50": percentile(waits, 50), "p99": percentile(waits, 99),
            "longest": max(waits), "parts_p50": parts, "all": gaps}


HEAD = ("| context | streams | deaths | gaps | p50, s | p99, s | longest, s | ended | started | computed |\n"
        "|---|---|---|---|---|---|---|---|---|---|")


def row_of(row):
    numbers = [row["p50"], row["p99"], row["longest"], *row["parts_p50"].values()]
    return (f"| {row['context']:,} | {row['streams']} | {row['deaths']} | {row['gaps']} | "
            + " | ".join(f"{number:.3f}" for number in numbers) + " |")


def main():
    def numbers(text):
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="further flags of foe serve may follow after --")
    parser.add_argument("model", help="model folder")
    parser.add_argument("--foe", default="build/foe", help="the program (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=2, help="ranks that serve the model (default: %(default)s)")
    parser.add_argument("--contexts", type=numbers, default=[256], help="numbers of tokens of a prompt, as in 256,2048 (default: 256)")
    parser.add_argument("--streams", type=numbers, default=[1, 8, 32], help="numbers of streams at once (default: 1,8,32)")
    parser.add_argument("--tokens", type=int, default=160, help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--gaps", type=int, default=100, help="a row ends once it has this many gaps (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="seconds after which a row has no further death (default: %(default)s)")
    parser.add_argument("--most-stall", type=float, default=0.25, help="seconds that this program itself may stand still during a death that counts (default: %(default)s)")
    parser.add_argument("--first-id", type=int, default=300, help="least token id of the random prompts (default: %(default)s)")
    parser.add_argument("--last-id", type=int, default=4000, help="token ids of prompts are below this one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of prompts and of sampling (default: %(default)s)")
    parser.add_argument("--json", help="also write all gaps to this file")
    words = sys.argv[1:]
    own = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:own])
    args.flags = words[own + 1:]
    serve_test.ARGS.foe = str(Path(args.foe).resolve())
    serve_test.PATIENCE_S = 600
    rows = []
    print(HEAD)
    with Server(args.ranks, "--restarts", 1000, *args.flags, model=args.model) as server:
        for context in args.contexts:
            for streams in args.streams:
                rows.append(measure(server, streams, context, args))
                print(row_of(rows[-1]), flush=True)
                if args.json:
                    Path(args.json).write_text(json.dumps({"arguments": vars(args), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
