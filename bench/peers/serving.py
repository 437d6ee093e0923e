#!/usr/bin/env python3
"""foe's server beside vLLM's: the same random weights in bf16, the same arrivals, in turn, by `foe bench serve`. With AMX, foe
rounds activations to bf16, too, as vLLM does (--dtype bf16xbf16 --attention bf16).

    bench/peers/serving.py DIR [--shape qwen3-moe-24l] [--rounds 3] [--json OUT]

First each server answers --capacity-prompts requests at once, which gives the requests per second that it is capable of. Then rounds: each
server in turn is started, warmed up and sent --num-prompts requests at 70 % of the slower one's capacity, with Poisson arrivals that
both get alike; each round has arrivals of its own. Prompts are random ids, answers greedy and of full length. The table has the medians over rounds of
what a round's requests had, least and most in brackets. Each server has its own defaults but for the model's context, the number of
sequences in a batch (--max-sequences for both) and the port. Both have all cores, which they share with the load generator.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from models import SHAPES, Models, run, say
from peers import PEERS, ROOT, add_flags as add_peer_flags, processor_has

SHARE = 0.7  # of the slower server's capacity
START_S = 900  # the most seconds until a server answers; vLLM compiles when it starts for the first time
METRICS = {"median_ttft_ms": "TTFT p50, ms", "p99_ttft_ms": "TTFT p99, ms", "median_tpot_ms": "TPOT p50, ms", "p99_tpot_ms": "TPOT p99, ms",
           "request_throughput": "requests/s", "failed": "failed"}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server, until the end of a `with` block."""

    def __init__(self, flags, name: str, model: Path):
        self.flags, self.port = flags, free_port()
        common = ["--port", self.port]
        if name == "foe":
            rounding = ["--dtype", "bf16xbf16", "--attention", "bf16"] if processor_has("amx_bf16") else []
            self.command = [flags.foe, "serve", model, "--threads", flags.threads, "--ranks", 1, "--max-sequences", flags.max_sequences,
                            *rounding, *flags.foe_option, *common]
        else:
            self.command = [PEERS[name].python(flags.environments), "-m", "vllm.entrypoints.openai.api_server", "--model", model,
                            "--host", "127.0.0.1", "--dtype", "bfloat16", "--max-num-seqs", flags.max_sequences, "--max-model-len",
                            flags.context, *common]
        self.environment = PEERS[name].environment(flags.threads)

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen(list(map(str, self.command)), stdout=self.log, stderr=self.log, env=self.environment,
                                        start_new_session=True)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def load(self, prompts: int, rate: float | str, seed: int) -> dict:
        """Returns the report of requests at a rate."""
        with tempfile.TemporaryDirectory(dir=self.flags.dir) as folder:
            try:
                run(self.flags.foe, "bench", "serve", "--port", self.port, "--ready-check-timeout-sec", START_S, "--tokenizer",
                    ROOT / "models" / "foe-8m", "--random-input-len", self.flags.input_len, "--random-output-len", self.flags.output_len,
                    "--num-prompts", prompts, "--request-rate", rate, "--num-warmups", 2, "--seed", seed, "--save-result", "--result-dir",
                    folder, "--result-filename", "result.json")
            except SystemExit as failed:
                self.log.seek(0)
                raise SystemExit(f"{failed}\nthe server wrote:\n{self.log.read()[-3000:]}") from None
            return json.loads((Path(folder) / "result.json").read_text("utf-8"))


def figure(values: list[float]) -> str:
    return f"{report.number(report.median(values))} ({report.number(min(values))}-{report.number(max(values))})"


def table(result: dict) -> str:
    lines = [f"### {result['title']}", "", f"{result['rate']:.2f} requests/s, {100 * SHARE:.0f} % of the capacity of the slower server"
             f" ({', '.join(f'{name} {value:.2f}' for name, value in result['capacity'].items())} requests/s).", "",
             f"| | {' | '.join(METRICS.values())} |", f"|{'---|' * (len(METRICS) + 1)}"]
    values = {name: {key: [a_round[name][key] for a_round in result["rounds"]] for key in METRICS} for name in result["capacity"]}
    for name, by_key in values.items():
        lines.append(f"| {name} | {' | '.join(figure(by_key[key]) for key in METRICS)} |")
    ratios = [[a / b for a, b in zip(values["foe"][key], values["vLLM"][key])] if all(values["vLLM"][key]) else None for key in METRICS]
    lines.append(f"| foe / vLLM | {' | '.join(figure(by_round) if by_round else '-' for by_round in ratios)} |")
    return "\n".join(lines)


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, help="folder for the models")
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-moe-24l", help="shape of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="cut the model to so many layers (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--num-prompts", type=int, default=40, help="requests of a round (default: %(default)s)")
    parser.add_argument("--capacity-prompts", type=int, default=16, help="requests at once (default: %(default)s)")
    parser.add_argument("--input-len", type=int, default=128, help="tokens of a prompt (default: %(default)s)")
    parser.add_argument("--output-len", type=int, default=32, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--context", type=int, default=2048, help="the longest sequence that vLLM plans for (default: %(default)s)")
    parser.add_argument("--max-sequences", type=int, default=32, help="most sequences in a batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each server (default: all cores)")
    parser.add_argument("--foe", type=Path, default=ROOT / "build" / "foe", help="the program (default: build/foe)")
    parser.add_argument("--foe-option", action="append", default=[], metavar="FLAG",
                        help="a further flag of `foe serve`, as in --foe-option=--pin; may be given again")
    add_peer_flags(parser)
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    return parser.parse_args()


def main() -> None:
    flags = parse_flags()
    flags.dir.mkdir(parents=True, exist_ok=True)
    PEERS["vLLM"].install(flags.environments, flags.jobs)
    models = Models(flags)
    folder = models.folder(flags.shape, flags.layers, "bf16")
    served = {"foe": folder, "vLLM": models.transformers_folder(folder, flags.shape)}
    capacity = {}
    for name, model in served.items():
        say(f"the capacity of {name}")
        with Server(flags, name, model) as server:
            capacity[name] = server.load(flags.capacity_prompts, "inf", 1)["request_throughput"]
    result = {"title": f"{flags.shape}, bf16, prompts of {flags.input_len} and answers of {flags.output_len} tokens", "capacity": capacity,
              "rate": SHARE * min(capacity.values()), "rounds": []}
    for i in range(flags.rounds):
        say(f"round {i + 1} of {flags.rounds}")
        measured = {}
        for name, model in served.items():
            with Server(flags, name, model) as server:
                measured[name] = server.load(flags.num_prompts, f"{result['rate']:.4f}", 2 + i)
        result["rounds"].append(measured)
        if flags.json:
            flags.json.write_text(json.dumps(result, indent=1), "utf-8")
    print(table(result))


if __name__ == "__main__":
    sys.exit(main())
