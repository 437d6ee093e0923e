#!/usr/bin/env python3
"""What others' tokens cost beside an answer that a hostile grammar holds (docs/lab/2026-12-01-beside-a-grammar.md).

    tests/python.sh bench/beside_grammar.py MODEL --rounds 5 --json beside.json

`foe serve` gives --streams answers of --tokens tokens each, and in the same steps one more, the neighbour: without a rule, with a
plain grammar, and with grammars that ask for as much work as a request may. They take turns. Printed is what the streams'
clients see, in milliseconds: from one chunk to the next, as the mean, the 99th percentile and the longest of each round. Each
is that of the median round, with the least and the most. The ratio is that of the means to those without a rule. A neighbour is
sent again until its streams have ended, and the first chunk of a stream, which waits for its prompt, is not counted.
"""

import argparse
import json
import statistics
import sys
import threading
from pathlib import Path

from pause import Stream
import serve_test

DEEP = "start: " + "(" * 60 + "/[a-z ]/" + ")*" * 60  # repeats within repeats
NEIGHBOURS = {
    "no rule": {},
    "plain grammar": {"grammar": "start: /[a-z ]/+"},
    "e: e e": {"grammar": "start: e\ne: e e | /[a-z ]/"},
    "root root root": {"grammar": "root ::= [a-z ] | root root | root root root"},
    "stars in stars": {"grammar": DEEP},
    "wide choice": {"grammar": "start: w+\nw: " + " | ".join(f'"{i:04x}" w' for i in range(900)) + " | /[a-z ]/"},
    "large schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "large", "schema": {
        "type": "array", "minItems": 10000, "items": {"type": "object", "additionalProperties": False, "properties": {
            f"member_{i}": {"type": "string", "maxLength": 20} for i in range(1000)}}}}}},
}


class Neighbour:
    """Sends one request after the other until it is told to end."""

    def __init__(self, server, fields):
        self.server, self.fields, self.error = server, fields, None
        self.begun, self.ended = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            while not self.ended.is_set():
                connection = self.server.connect()
                connection.request("POST", "/v1/completions", json.dumps(self.fields))
                response = connection.getresponse()
                if response.status != 200:
                    raise AssertionError(f"{response.status}: {response.read()}")
                while not self.ended.is_set() and (line := response.readline()):
                    if line.startswith(b"data: {"):
                        self.begun.set()
                connection.close()
        except Exception as error:  # the main thread raises it
            self.error = error
            self.begun.set()

    def end(self):
        self.ended.set()
        self.thread.join(serve_test.PATIENCE_S)
        if self.error:
            raise self.error


def measure(server, rule, args):
    """Returns milliseconds between the chunks of all streams, in ascending order."""
    common = dict(prompt="It was", temperature=1, stream=True)
    neighbour = Neighbour(server, common | {"max_tokens": args.tokens, "min_tokens": args.tokens, "seed": 99} | rule)
    if not neighbour.begun.wait(serve_test.PATIENCE_S):
        raise AssertionError(f"no token of the neighbour after {serve_test.PATIENCE_S} s")
    try:
        streams = [Stream(server, common | {"max_tokens": args.tokens, "ignore_eos": True, "seed": i}) for i in range(args.streams)]
        for stream in streams:
            stream.end()
    finally:
        neighbour.end()
    return sorted(1000 * (b - a) for stream in streams for a, b in zip(stream.times[1:], stream.times[2:]))


def main():
    parser = argparse.ArgumentParser(description="Measure others' tokens beside an answer that a grammar holds.")
    parser.add_argument("model", help="model folder")
    parser.add_argument("--foe", default="build/foe", help="the program (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=1, help="ranks that serve the model (default: %(default)s)")
    parser.add_argument("--streams", type=int, default=4, help="streams at once (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=400, help="tokens of each stream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each neighbour has its turn (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    serve_test.ARGS.foe = args.foe
    rounds = {name: [] for name in NEIGHBOURS}
    with serve_test.Server(args.ranks, model=args.model) as server:
        for number in range(args.rounds):
            for name, rule in NEIGHBOURS.items():
                gaps = measure(server, rule, args)
                rounds[name].append({"mean": statistics.fmean(gaps), "p99": gaps[int(0.99 * len(gaps))], "longest": gaps[-1]})
                print(f"round {number + 1} of {args.rounds}, {name}: {rounds[name][-1]['mean']:.3f} ms", file=sys.stderr)
    print("| neighbour | mean, ms | p99, ms | longest, ms | mean / no rule |\n|---|---|---|---|---|")
    base = statistics.median(r["mean"] for r in rounds["no rule"])
    for name, results in rounds.items():
        cells = []
        for figure in "mean", "p99", "longest":
            values = [r[figure] for r in results]
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")
        ratio = statistics.median(r["mean"] for r in results) / base
        print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} |")
    if args.json:
        args.json.write_text(json.dumps(rounds, indent=1) + "\n")


if __name__ == "__main__":
    main()
