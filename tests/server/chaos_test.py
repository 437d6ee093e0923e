#!/usr/bin/env python3
"""Clients of all kinds talk to `foe serve` while its ranks are killed, stopped and cut off. Nobody may notice.

    tests/server/chaos_test.py build/foe                                          # a short run: what CI does
    tests/server/chaos_test.py build/foe --ranks 4 --minutes 30 --faults 100 --json chaos.json
    tests/server/chaos_test.py build/foe --netlab --minutes 30 --faults 100       # on two nodes, links going down

Each request has its answer from a calm run. Every one that was accepted must get just that, whatever dies meanwhile:
with a token lost, doubled or changed it would differ. Afterwards the front end must hold as many file handles as before,
and about as much memory, and end well. The moments of faults are random (--seed), and how many requests are answered
between them depends on the machine; nothing else does.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import serve_test
from serve_test import PROMPTS, SAMPLED, Server, command_of, descendants, wait_until

LAB = Path(__file__).resolve().parents[2] / "tools/netlab/lab"
CLIENTS = 8
GROWTH_BYTES = 24 << 20  # of the front end's memory: what an allocator may keep in pieces

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BAD = [b"", b"{", b"\xff", b'{"prompt": [561]}', b'{"prompt": "x", "temperature": NaN}', b'{"prompt": "x", "n": -1}',
       b"[" * 5000, b'{"messages": 1}']


# Answers that a schema constrains; the model has no token of its own to end them with.
PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"},
                                           "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}},
          "required": ["name", "age", "tags"], "additionalProperties": False}
AS_PERSON = dict(response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
                 stop_token_ids=[560])


def requests():
    """Returns (path, fields) of requests whose answers are always the same."""
    chat = [{"role": "user", "content": "Tell me of the sea. " * 10}]
    found = [(COMPLETIONS, dict(prompt=prompt, max_tokens=60 + 20 * i) | (SAMPLED if i % 2 else {}))
             for i, prompt in enumerate(PROMPTS)]
    found += [
        (COMPLETIONS, dict(prompt="Once upon a time", max_tokens=300, ignore_eos=True)),
        (COMPLETIONS, dict(prompt="A long one. " * 150, max_tokens=30)),  # prefill in several chunks
        (COMPLETIONS, dict(prompt=[7, 8, 9] * 900, max_tokens=20) | SAMPLED),
        (COMPLETIONS, dict(prompt=PROMPTS[:4], max_tokens=40, n=2) | SAMPLED),
        (COMPLETIONS, dict(prompt="It was", max_tokens=100, temperature=1.3, seed=3, stop=["e", "\n\n"])),
        (COMPLETIONS, dict(prompt="It was", max_tokens=40, logprobs=3)),
        (COMPLETIONS, dict(prompt="It was", max_tokens=40, logprobs=2, temperature=1, seed=5)),
        (COMPLETIONS, dict(prompt="How many are there?", max_tokens=20, logprobs=1, echo=True)),
        (COMPLETIONS, dict(prompt="It was", max_tokens=120, temperature=0.7, seed=9, frequency_penalty=0.4,
                           presence_penalty=0.2, repetition_penalty=1.1)),
        (CHAT, dict(messages=chat, max_tokens=80)),
        (CHAT, dict(messages=chat, max_tokens=80, n=3) | SAMPLED),
        (CHAT, dict(messages=chat, max_tokens=50, logprobs=True, top_logprobs=4)),
        (COMPLETIONS, dict(prompt="It was", max_tokens=120) | AS_PERSON | SAMPLED),
        (CHAT, dict(messages=chat, max_tokens=120, n=2, logprobs=True) | AS_PERSON | SAMPLED),
        (COMPLETIONS, dict(prompt="It was", max_tokens=60, response_format={"type": "json_object"}, stop_token_ids=[560])),
    ]
    return found


# --- answers, streamed or not, in one form: what each choice is ---


def merge(choices, piece):
    """Adds a choice, or a piece of one, to what there is of it."""
    choice = choices.setdefault(piece["index"], {"text": "", "finish": None, "logprobs": []})
    choice["text"] += piece["text"] if "text" in piece else (piece.get("message") or piece["delta"]).get("content") or ""
    choice["finish"] = piece["finish_reason"] or choice["finish"]
    logprobs = piece.get("logprobs") or {}
    choice["logprobs"] += logprobs.get("content") or list(zip(logprobs.get("tokens", []),
                                                              logprobs.get("token_logprobs", []),
                                                              logprobs.get("top_logprobs") or []))


class Refused(Exception):
    """The answer is an error."""


def answer_to(server, path, fields, stream):
    choices = {}
    if stream:
        with server.stream(path, **fields, stream_options={"include_usage": True}) as chunks:
            for chunk in chunks:
                if "error" in chunk:
                    raise Refused(chunk["error"])
                for piece in chunk["choices"]:
                    merge(choices, piece)
                usage = chunk.get("usage")
    else:
        status, _, body = server.request("POST", path, fields)
        answer = json.loads(body)
        if status != 200:
            raise Refused(answer["error"])
        for choice in answer["choices"]:
            merge(choices, choice)
        usage = answer["usage"]
    return {"choices": choices, "tokens": (usage["prompt_tokens"], usage["completion_tokens"])}


# --- clients ---


class Clients:
    """Ask one thing after the other, and check every answer."""

    def __init__(self, server, expected, seed):
        self.server, self.expected, self.seed = server, expected, seed
        self.counts = collections.Counter()
        self.wrong = []
        self.ending = threading.Event()
        self.threads = []

    def start(self):
        self.ending.clear()
        self.threads = [threading.Thread(target=self._run, args=(f"{self.seed}/{i}",)) for i in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Everybody gets the answer to the last question."""
        self.ending.set()
        for thread in self.threads:
            thread.join(serve_test.PATIENCE_S)
            if thread.is_alive():
                self.wrong.append("a request has no end")

    def _run(self, seed):
        choice = random.Random(seed)
        while not self.ending.is_set():
            try:
                self._ask(choice)
            except Exception as error:  # whatever else it is, it is no answer
                self.wrong.append(f"{type(error).__name__}: {error}")

    def _ask(self, choice):
        kind = choice.random()
        path, fields, calm = choice.choice(self.expected)
        if kind < 0.1:
            return self._ask_badly(choice)
        if kind < 0.2:
            return self._leave(choice, path, fields)
        stream = choice.random() < 0.5
        self.counts["asked"] += 1
        got = answer_to(self.server, path, fields, stream)
        self.counts["answered"] += 1
        self.counts["tokens"] += got["tokens"][1]
        if got != calm:
            self.wrong.append(f"{path} {json.dumps(fields)[:300]}, streamed: {stream}\n  expected {calm}\n  got      {got}")

    def _ask_badly(self, choice):
        status = self.server.request("POST", choice.choice([COMPLETIONS, CHAT]), choice.choice(BAD))[0]
        self.counts["refused"] += 1
        if status != 400:
            self.wrong.append(f"expected status 400, got {status}")

    def _leave(self, choice, path, fields):
        connection = self.server.connect()
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(fields | {"stream": choice.random() < 0.5}))
            time.sleep(choice.random())
        self.counts["left"] += 1


# --- faults ---


class Faults:
    """Does to the ranks, at random moments, what can happen to them."""

    def __init__(self, server, choice, netlab):
        self.server, self.choice = server, choice
        self.counts = collections.Counter()
        self.kinds = [self.kill_one, self.kill_some, self.stop_one, self.stop_some, self.kill_mpirun, self.stop_mpirun,
                      self.kill_in_a_collective, self.kill_while_restarting, self.kill_twice] + 4 * [self.cut_off] * netlab

    def one(self):
        """Something happens, once the ranks are there; returns when they are back."""
        self.wait_up()
        fault = self.choice.choice(self.kinds)
        lost = self.losses()
        fault()
        self.counts[fault.__name__] += 1
        # A stopped mpirun does no harm, and a link that is back soon none either.
        if fault not in (self.stop_mpirun, self.cut_off):
            wait_until(lambda: self.losses() > lost, f"the loss after {fault.__name__}")
        self.wait_up()

    def losses(self):
        return len(self.server.logged("the ranks are lost"))

    def wait_up(self):
        wait_until(lambda: self.server.request("GET", "/health")[0] == 200, "the ranks")

    def ranks(self):
        found = self.server.ranks()
        self.choice.shuffle(found)
        return found

    def mpirun(self):
        return [pid for pid in descendants(self.server.process.pid) if command_of(pid)[:1] and command_of(pid)[0].endswith(b"mpirun")]

    def send(self, pids, sig):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def kill_one(self):
        self.send(self.ranks()[:1], signal.SIGKILL)

    def kill_some(self):
        ranks = self.ranks()
        self.send(ranks[:self.choice.randint(1, len(ranks))], signal.SIGKILL)

    def stop_one(self):
        self.send(self.ranks()[:1], signal.SIGSTOP)

    def stop_some(self):
        ranks = self.ranks()
        self.send(ranks[:self.choice.randint(1, len(ranks))], signal.SIGSTOP)

    def kill_mpirun(self):
        self.send(self.mpirun() or self.ranks(), signal.SIGKILL)

    def stop_mpirun(self):
        self.send(self.mpirun(), signal.SIGSTOP)
        if self.choice.random() < 0.5:
            self.send(self.ranks()[:1], signal.SIGKILL)

    def kill_in_a_collective(self):
        first, *others = self.ranks()
        self.send([first], signal.SIGSTOP)
        time.sleep(0.3)  # under load all others wait for it by now
        self.send(others[:1] or [first], signal.SIGKILL)

    def kill_while_restarting(self):
        old = self.ranks()
        self.send(old, signal.SIGKILL)
        wait_until(lambda: set(self.server.ranks()) - set(old), "ranks that start")
        time.sleep(self.choice.random() * 0.5)
        self.send(set(self.server.ranks()) - set(old), self.choice.choice([signal.SIGKILL, signal.SIGSTOP]))

    def kill_twice(self):
        """The second time all prompts are running again."""
        ready = len(self.server.logged("the ranks are up again"))
        self.kill_one()
        wait_until(lambda: len(self.server.logged("the ranks are up again")) > ready, "the ranks")
        self.kill_one()

    def cut_off(self):
        lab("link", "n1", "down")
        time.sleep(self.choice.choice([0.5, 5, 30, 60]) * self.choice.random())
        if self.choice.random() < 0.3:  # and again, as soon as it is back
            lab("link", "n1", "up")
            time.sleep(2 * self.choice.random())
            lab("link", "n1", "down")
            time.sleep(20 * self.choice.random())
        lab("link", "n1", "up")


def lab(*arguments):
    subprocess.run([LAB, *map(str, arguments)], check=True)


# --- the run ---


def usage_of(pid):
    """Returns bytes in memory and open file handles."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(status.split("VmRSS:")[1].split()[0]) << 10
    return {"rss_bytes": memory, "files": len(os.listdir(f"/proc/{pid}/fd"))}


def calm_answers(server):
    """Returns (path, fields, answer) of all requests."""
    found = []
    for path, fields in requests():
        answer = answer_to(server, path, fields, False)
        for choice in answer["choices"].values():
            if bool(choice["logprobs"]) != ("logprobs" in fields):
                raise AssertionError(f"{path} {json.dumps(fields)[:300]}: got {choice}")
            if fields.get("stop_token_ids") and choice["finish"] == "stop":
                json.loads(choice["text"])
        found.append((path, fields, answer))
    return found


def rest(server):
    """Returns what the front end holds when nobody asks anything."""
    wait_until(lambda: json.loads(server.request("GET", "/live")[2])["in_flight"] == 0, "the last answers")
    time.sleep(3)  # connections linger for two
    return usage_of(server.process.pid)


def trouble(server, faults, clients, count, seconds):
    """So many faults, spread over about so much time, under load."""
    clients.start()
    start = time.monotonic()
    for i in range(count):
        due = start + seconds * (i + faults.choice.random()) / count
        time.sleep(max(0.0, due - time.monotonic()))
        faults.one()
        if clients.wrong:
            break
        if (i + 1) % 5 == 0 or i + 1 == count or sys.stdout.isatty():
            print(f"{time.monotonic() - start:6.0f} s: {i + 1} faults, {faults.losses()} restarts, "
                  f"{clients.counts['answered']} answers", flush=True)
    clients.stop()


def run(args, foe_flags):
    choice = random.Random(args.seed)
    flags = ["--hang-timeout", args.hang_timeout, "--restarts", 1000, "--restart-window", 60, *foe_flags]
    with Server(args.ranks, *foe_flags) as calm:
        expected = calm_answers(calm)
    with Server(args.ranks, *flags) as server:
        clients = Clients(server, expected, args.seed)
        faults = Faults(server, choice, args.netlab)
        trouble(server, faults, clients, max(2, args.faults // 10), args.minutes * 6)  # warms up
        before = rest(server)
        start = time.monotonic()
        trouble(server, faults, clients, args.faults, args.minutes * 60)
        seconds = time.monotonic() - start
        after = rest(server)
        status = server.end()
        wrong = list(clients.wrong)
        if status != 0:
            wrong.append(f"expected exit status 0, got {status}")
        if after["files"] > before["files"]:
            wrong.append(f"expected {before['files']} file handles, got {after['files']}")
        if after["rss_bytes"] > before["rss_bytes"] + GROWTH_BYTES:
            wrong.append(f"expected about {before['rss_bytes']} bytes in memory, got {after['rss_bytes']}")
        if clients.counts["answered"] != clients.counts["asked"]:
            wrong.append(f"{clients.counts['asked']} requests, {clients.counts['answered']} answers")
        if wrong:
            print("".join(server.log[-100:]), file=sys.stderr)
        return {"ranks": args.ranks, "netlab": args.netlab, "seed": args.seed, "seconds": round(seconds, 1),
                "faults": sum(faults.counts.values()), "faults_by_kind": dict(faults.counts),
                "restarts": faults.losses(), "left_out": len(server.logged("left out, as")),
                "clients": dict(clients.counts), "before": before, "after": after, "wrong": wrong}


def print_table(result):
    rows = [("ranks", result["ranks"]), ("seconds", result["seconds"]), ("faults", result["faults"])]
    rows += [(f"  {kind}", count) for kind, count in sorted(result["faults_by_kind"].items())]
    rows += [("restarts", result["restarts"]), ("hosts left out", result["left_out"])]
    rows += [(f"requests {kind}" if kind != "tokens" else "output tokens checked", count)
             for kind, count in result["clients"].items()]
    for key, unit in (("rss_bytes", "memory, bytes"), ("files", "file handles")):
        rows.append((f"{unit}, before and after", f"{result['before'][key]} {result['after'][key]}"))
    rows.append(("wrong", len(result["wrong"])))
    for name, value in rows:
        print(f"{name:34} {value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("foe", help="the program")
    parser.add_argument("--ranks", type=int, default=2, help="ranks that serve the model (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=0.75, help="length of the run (default: %(default)s)")
    parser.add_argument("--faults", type=int, default=8, help="number of faults, or a few more (default: %(default)s)")
    parser.add_argument("--hang-timeout", type=float, default=2,
                        help="that of foe serve, in seconds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments of faults (default: %(default)s)")
    parser.add_argument("--json", help="also write the summary to this file")
    parser.add_argument("--netlab", action="store_true", help="on two nodes, whose links go down (needs root)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # of the first node
    args = parser.parse_args()
    if args.netlab and not args.inside:
        return in_the_lab(args)
    serve_test.ARGS.foe = str(Path(args.foe).resolve())
    serve_test.PATIENCE_S = 600
    serve_test.setUpModule()
    try:
        share = args.ranks // 2
        result = run(args, ["--hosts", f"n0:{args.ranks - share},n1:{share}", "--host-patience", 15] * args.netlab)
    finally:
        serve_test.tearDownModule()
    print_table(result)
    for line in result["wrong"][:10]:
        print(line)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))
    return 1 if result["wrong"] else 0


def in_the_lab(args):
    lab("down")  # what a killed run may have left
    lab("up", 2, "none")
    try:
        return subprocess.run([LAB, "in", "n0", sys.executable, *sys.argv, "--inside"]).returncode
    finally:
        lab("down")


if __name__ == "__main__":
    sys.exit(main())
