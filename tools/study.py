#!/usr/bin/env python3
"""Runs what is left of the study's runs (study/plan.toml), one after the other, and keeps what comes out.

    tools/study.py status
    tools/study.py run --foe build/foe --data /tmp/foe-data --runs /tmp/foe-runs/study
    tools/study.py run ... --size 1m --arm moe --arm foe-sum --most 4

A run is a size, an arm and a seed. Runs go by size, then seed, then arm, so that arms of one seed come together. Each is
`foe train` at nice 19, in RUNS/NAME with its configuration. A run that was cut off (Ctrl-C and SIGTERM end the queue after
the current step; a reboot does so anyhow) goes on from its checkpoint. When it has ended, study/results/NAME.json has what
the analysis needs: that is all the state there is, small enough to be committed. Nothing is committed here. One queue at a
time works in RUNS; `run` on another machine with other --arm or --size does the rest.
"""

import argparse
import fcntl
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "study"


class Run:
    def __init__(self, plan: dict, size: dict, arm: dict, seed: int) -> None:
        self.size, self.arm, self.seed = size["name"], arm["name"], seed
        self.name = f"{self.size}-{self.arm}-{seed}"
        self.config = {
            "model": size["model"] | arm.get("model", {}),
            "data": plan["data"],
            "train": plan["train"] | size["train"] | arm.get("train", {}) | {"seed": seed},
            "run": plan["run"],
        }
        # What decides the result; how often is logged does not.
        decides = {key: self.config[key] for key in ("model", "data", "train")}
        self.digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def toml(self) -> str:
        def value(x):
            if isinstance(x, dict):
                return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in x.items()) + " }"
            if isinstance(x, list):
                return "[" + ", ".join(map(value, x)) + "]"
            return json.dumps(x) if isinstance(x, (str, bool, int)) else repr(x)

        return "\n".join(f"[{table}]\n" + "".join(f"{key} = {value(x)}\n" for key, x in keys.items())
                         for table, keys in self.config.items())  # fmt: skip

    def result_path(self) -> Path:
        return STUDY / "results" / f"{self.name}.json"

    def result(self) -> dict | None:
        """What came out, or None. Stops if the plan has changed since."""
        path = self.result_path()
        if not path.exists():
            return None
        result = read(path, "a result", json.loads, "config_sha256", "held_out_nats")
        if result["config_sha256"] != self.digest:
            sys.exit(f"study: {path}: expected a run of this plan's configuration ({self.digest[:8]}), got one of "
                     f"{result['config_sha256'][:8]}: remove it, or put the plan back")  # fmt: skip
        return result


def read(path: Path, what: str, parse, *needed: str):
    """The file's contents, which must have the keys that are needed."""
    try:
        contents = parse(path.read_text("utf-8"))
        missing = [key for key in needed if key not in contents]
    except (OSError, ValueError, TypeError) as error:  # what is no TOML or JSON is a ValueError
        sys.exit(f"study: {path}: expected {what}, got an error: {error}")
    if missing:
        sys.exit(f"study: {path}: expected {what} with {', '.join(needed)}, got one without {', '.join(missing)}")
    return contents


def load_runs(path: Path) -> list[Run]:
    plan = read(path, "a plan", tomllib.loads, "data", "train", "run", "size", "arm")
    arms = {arm["name"]: arm for arm in plan["arm"]}
    runs = []
    for size in plan["size"]:
        for name in size["arms"]:
            if name not in arms:
                sys.exit(f"study: {path}: size {size['name']}: expected arms of {', '.join(arms)}, got {name}")
        runs += [Run(plan, size, arms[name], seed) for seed in range(1, size["seeds"] + 1) for name in size["arms"]]
    return runs


def read_metrics(path: Path) -> list[dict]:
    """The whole lines of a metrics.jsonl; the last one of a run that goes on may not be whole."""
    lines = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def summary(run: Run, lines: list[dict], foe: str, tokens: dict) -> dict:
    steps = [line for line in lines if "loss" in line]
    last = steps[-max(1, len(steps) // 10) :]  # the last tenth
    final = lines[-1]
    norms = sorted(line["grad_norm"] for line in steps)
    return {
        "name": run.name, "size": run.size, "arm": run.arm, "seed": run.seed, "config_sha256": run.digest,
        "config": run.config, "foe": foe, "tokens_sha256": {split: tokens[split]["sha256"] for split in ("train", "valid")},
        "held_out_nats": final["valid_loss"], "held_out_bits_per_byte": final["valid_bits_per_byte"],
        "curve": [[line["tokens"], line["valid_loss"]] for line in lines if "valid_loss" in line],
        "train_loss": statistics.fmean(line["loss"] for line in last),
        "balance_loss": statistics.fmean(line["balance_loss"] for line in last),
        "z_loss": statistics.fmean(line["z_loss"] for line in last),
        "grad_norm": {"median": statistics.median(norms), "p99": norms[int(0.99 * (len(norms) - 1))], "largest": norms[-1]},
        "tokens_per_s": statistics.median(line["tokens_per_s"] for line in steps),
        "peak_share": statistics.median(line["peak_share"] for line in steps),
    }  # fmt: skip


class Queue:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.foe, self.data, self.folder = arguments.foe, arguments.data, arguments.runs
        self.nice = arguments.nice
        self.stopping, self.child = False, None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.stop)

    def stop(self, number: int, _frame) -> None:
        self.stopping = True
        if self.child and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)  # it finishes its step and writes a checkpoint

    def train(self, run: Run, version: str, tokens: dict) -> bool:
        """Returns whether the run has ended."""
        folder = self.folder / run.name
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "train.toml"
        config.write_text(run.toml(), "utf-8")
        command = [self.foe, "train", config, "--data", self.data, "--run", folder]
        with (folder / "output.txt").open("a", encoding="utf-8") as output:
            # A session of its own: a Ctrl-C reaches it once, through stop().
            self.child = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT,
                                          start_new_session=True, preexec_fn=lambda: os.nice(self.nice))  # fmt: skip
            status = self.child.wait()
        lines = read_metrics(folder / "metrics.jsonl")
        if status == 0 and lines and lines[-1].get("complete"):
            path = run.result_path()
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(summary(run, lines, version, tokens), indent=1) + "\n", "utf-8")
            partial.rename(path)
            print(f"{run.name}: {lines[-1]['valid_loss']:.4f} nats per token of the held-out novel", flush=True)
            return True
        if not self.stopping:
            tail = (folder / "output.txt").read_text("utf-8").strip().splitlines()[-1:]
            print(f"{run.name}: expected foe train to end, got status {status}: {' '.join(tail)}", flush=True)
        return False

    def run(self, runs: list[Run], most: int) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            sys.exit(f"study: --runs: expected a folder that can be written, got an error: {error}")
        with (self.folder / "queue.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                sys.exit(f"study: {self.folder}: expected a folder of its own, but another queue works there")
            try:
                version = subprocess.check_output([self.foe, "--version"], text=True).strip()
            except (OSError, subprocess.CalledProcessError) as error:
                sys.exit(f"study: --foe {self.foe}: expected the program, got an error: {error}")
            left = [run for run in runs if run.result() is None]
            if not left:
                print("study: nothing is left to run")
                return 0
            meta = self.data / left[0].config["data"]["tokens"] / "meta.json"
            tokens = read(meta, "what tools/pack_tokens.py writes", json.loads, "train", "valid")
            if not all("sha256" in tokens[split] for split in ("train", "valid")):
                sys.exit(f"study: {meta}: expected the SHA-256 of the tokens, as tools/pack_tokens.py writes it, got none")
            failed = 0
            for number, run in enumerate(left[:most] if most else left, 1):
                if self.stopping:
                    break
                done = read_metrics(self.folder / run.name / "metrics.jsonl")
                begun = f", goes on behind step {done[-1]['step']}" if done else ""
                print(f"{run.name}: {number} of {len(left)} that are left{begun}", flush=True)
                failed += not self.train(run, version, tokens) and not self.stopping
            if self.stopping:
                print("study: stopped; the same command goes on")
            return 1 if failed else 0


def print_status(runs: list[Run], folder: Path) -> None:
    for run in runs:
        result = run.result()
        lines = read_metrics(folder / run.name / "metrics.jsonl") if result is None else []
        if result:
            state = f"done   {result['held_out_nats']:.4f} nats"
        elif lines:
            state = f"step {lines[-1]['step']} of {run.config['train']['steps']}"
        else:
            state = "to do"
        print(f"{run.name:<20} {state}")
    done = sum(run.result() is not None for run in runs)
    print(f"{done} of {len(runs)} runs are done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("status", "run"))
    parser.add_argument("--plan", type=Path, default=STUDY / "plan.toml", help="the runs (default: %(default)s)")
    parser.add_argument("--foe", default=str(ROOT / "build/foe"), help="the program (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("/tmp/foe-data"), help="folder that the plan's [data] is in")
    parser.add_argument("--runs", type=Path, default=Path("/tmp/foe-runs/study"), help="folder of the runs (default: %(default)s)")
    parser.add_argument("--size", action="append", help="only this size; may be repeated")
    parser.add_argument("--arm", action="append", help="only this arm; may be repeated")
    parser.add_argument("--nice", type=int, default=19, help="niceness of foe train (default: %(default)s)")
    parser.add_argument("--most", type=int, default=0, help="end after so many runs (default: all)")
    arguments = parser.parse_args()
    runs = load_runs(arguments.plan)
    for flag, wanted, known in (("size", arguments.size, {run.size for run in runs}), ("arm", arguments.arm, {run.arm for run in runs})):
        for name in set(wanted or []) - known:
            sys.exit(f"study: --{flag}: expected one of {', '.join(sorted(known))}, got {name}")
    if arguments.most < 0:
        sys.exit(f"study: --most: expected a number of runs, got {arguments.most}")
    runs = [run for run in runs
            if (not arguments.size or run.size in arguments.size) and (not arguments.arm or run.arm in arguments.arm)]
    if not runs:
        sys.exit("study: expected a --size that has the --arm, got none")
    if arguments.command == "status":
        print_status(runs, arguments.runs)
    else:
        sys.exit(Queue(arguments).run(runs, arguments.most))


if __name__ == "__main__":
    main()
