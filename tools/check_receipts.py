#!/usr/bin/env python3
"""Takes receipts from a server under load, and lets `foe verify` check them with other numbers of ranks and threads, plans
and instruction sets. It goes on where it was stopped. Standard library only.

    tools/check_receipts.py build/foe models/foe-8m --out receipts --count 10000
    tools/check_receipts.py build/foe models/moe-8m --out receipts-moe --serve-flags "--ranks 2 --plan ep" \\
        --verify "--threads 1" --verify "-n 2 --plan tp" --verify "-n 8 --plan ep"

OUT has receipts-FIRST.jsonl, each with SHARD receipts, and for each way to verify a file verified-WAY.txt of the shards
that are equal. The status is 1 if a receipt is not.
"""

import argparse
import json
import os
import random
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SHARD = 250  # receipts in a file
SETS = ["AVX2", "AVX3", "AVX3 with VNNI", "AVX3 with VNNI and AMX"]
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
WORDS = "It was a truth that the house of Anne and her sister could not be found , said Mr. Bennet".split()
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}


class Server:
    """`foe serve` with a model."""

    def __init__(self, foe, model, flags=()):
        self.process = subprocess.Popen([foe, "serve", str(model), "--port", "0", *map(str, flags)],
                                        stderr=subprocess.PIPE, text=True, errors="backslashreplace")
        self.log = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                self.ready.set()
        self.ready.set()

    def __enter__(self):
        self.ready.wait(600)
        if not hasattr(self, "port"):
            raise RuntimeError("the server did not start:\n" + "".join(self.log))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        self.reader.join(60)
        self.process.stderr.close()

    def open(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        return urllib.request.urlopen(request, timeout=600)

    def answer(self, path, body):
        """Returns the answer or, of a stream, its last chunk."""
        with self.open(path, body) as response:
            text = response.read()
        if not body.get("stream"):
            return json.loads(text)
        events = [line[6:] for line in text.splitlines() if line.startswith(b"data: ")]
        return json.loads(events[-2])


def request_of(number, most_tokens=40, vocabulary=4096):
    """Returns the path and the body of a request that depends on its number alone."""
    r = random.Random(number)
    body = {"receipt": True, "max_tokens": r.randint(1, most_tokens)}

    def maybe(share, **fields):
        if r.random() < share:
            body.update(fields)
    maybe(0.7, temperature=r.choice([0.3, 0.7, 1, 1.5]))
    maybe(0.3, top_p=r.choice([0.5, 0.9, 0.99]))
    maybe(0.3, top_k=r.choice([1, 5, 40, 64, 65, 1000]))
    maybe(0.2, min_p=r.choice([0.01, 0.1]))
    maybe(0.5, seed=r.getrandbits(64) - (1 << 63))
    maybe(0.15, presence_penalty=r.uniform(-2, 2))
    maybe(0.15, frequency_penalty=r.uniform(-2, 2))
    maybe(0.15, repetition_penalty=r.uniform(0.5, 2))
    maybe(0.1, logit_bias={str(r.randrange(vocabulary)): r.uniform(-100, 10) for _ in range(5)})
    maybe(0.05, allowed_token_ids=sorted(r.sample(range(vocabulary), 500)))
    maybe(0.05, bad_words=["the", "house of"])
    maybe(0.2, stop=r.sample([" the", ",", "\n", "e", "of her"], 2), include_stop_str_in_output=r.random() < 0.5)
    maybe(0.1, stop_token_ids=[r.randrange(vocabulary) for _ in range(20)])
    maybe(0.1, min_tokens=r.randint(0, body["max_tokens"]))
    maybe(0.1, n=r.randint(2, 3))
    maybe(0.3, stream=True)
    maybe(0.1, logprobs=True if number % 3 == 0 else 2)
    if body.get("stream"):
        maybe(0.5, stream_options={"include_usage": True})
    rule = r.random()
    if rule < 0.05:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    elif rule < 0.1:
        body["structured_outputs"] = {"regex": "[a-z]{2,8}( [a-z]{2,8}){3}"}
    elif rule < 0.13:
        body["structured_outputs"] = {"choice": ["yes", "no", "perhaps"]}
    else:
        maybe(0.2, ignore_eos=True)
    text = " ".join(r.choices(WORDS, k=r.randint(1, 60)))
    if number % 3 == 0:
        return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
    prompts = [text, [text, text[:5]], [r.randrange(vocabulary) for _ in range(r.randint(1, 100))]]
    return "/v1/completions", body | {"prompt": prompts[r.choice([0, 0, 0, 1, 2])]}


def receipt_line(server, number, **options):
    path, body = request_of(number, **options)
    return json.dumps(server.answer(path, body)["receipt"]) + "\n"


def take_receipts(server, numbers, clients=16, **options):
    """Returns the lines of their receipts, in order."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda number: receipt_line(server, number, **options), numbers))


def verify(foe, receipts, model, way="", instruction_set=""):
    """Runs `foe verify`; `-n RANKS` in `way` is mpirun's. Returns the status and what was printed."""
    flags = shlex.split(way)
    launcher = []
    if "-n" in flags:
        at = flags.index("-n")
        launcher = [*MPIRUN, *flags[at:at + 2]]
        del flags[at:at + 2]
    environment = os.environ | ({"FOE_INSTRUCTION_SET": instruction_set} if instruction_set else {})
    done = subprocess.run([*launcher, foe, "verify", str(receipts), str(model), *flags], env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="backslashreplace")
    return done.returncode, done.stdout


def instruction_sets(foe, model):
    """Returns the names of those that this processor has."""
    def runs(name):
        return subprocess.run([foe, "tokenize", str(model), "--text", "a"], env=os.environ | {"FOE_INSTRUCTION_SET": name},
                              capture_output=True).returncode == 0
    return [name for name in SETS if runs(name)]


def progress(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def take_shards(args, shards):
    missing = [shard for shard in shards if not shard.exists()]
    if not missing:
        return
    with Server(args.foe, args.model, shlex.split(args.serve_flags)) as server:
        for shard in missing:
            first = int(shard.stem.split("-")[1])
            lines = take_receipts(server, range(first, min(first + SHARD, args.count)))
            partial = shard.with_suffix(".partial")
            partial.write_text("".join(lines))
            partial.rename(shard)
            progress(f"{shard.name}: {len(lines)} receipts")


def check_shards(args, shards, way, instruction_set):
    """Returns how many shards are not equal."""
    name = re.sub(r"\W+", "-", f"{way} {instruction_set}").strip("-") or "default"
    record = args.out / f"verified-{name}.txt"
    done = set(record.read_text().split()) if record.exists() else set()
    failed = 0
    for shard in shards:
        if shard.name in done:
            continue
        status, output = verify(args.foe, shard, args.model, way, instruction_set)
        progress(f"{name}: {shard.name}: {output.strip()}")
        failed += status != 0
        if status == 0:
            with record.open("a") as file:
                file.write(shard.name + "\n")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("foe")
    parser.add_argument("model")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--golden", type=Path, help="only write a few receipts to this file, for the tests")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--serve-flags", default="--ranks 2", help="flags of foe serve")
    parser.add_argument("--verify", action="append", metavar="FLAGS",
                        help="flags of foe verify, with -n RANKS; may be given several times")
    args = parser.parse_args()
    if args.golden:
        with Server(args.foe, args.model) as server:
            args.golden.write_text("".join(take_receipts(server, range(60, 84), most_tokens=12)))
        return 0
    if not args.out:
        parser.error("expected --out or --golden")
    args.out.mkdir(parents=True, exist_ok=True)
    shards = [args.out / f"receipts-{first:06}.jsonl" for first in range(0, args.count, SHARD)]
    take_shards(args, shards)
    ways = args.verify or ["--threads 1", "-n 2", "-n 3", "-n 4", "-n 8"]
    failed = sum(check_shards(args, shards, ways[0], name) for name in instruction_sets(args.foe, args.model))
    failed += sum(check_shards(args, shards, way, "") for way in ways[1:])
    progress(f"{failed} checks of shards failed" if failed else "all receipts are equal")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
