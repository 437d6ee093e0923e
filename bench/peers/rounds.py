"""A round: the machine's limits, and then each system in a process of its own."""

import json
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import points
import report
from models import HERE, run, say
from peers import Peer

TOKENS = ",".join(str(7 + 41 * i) for i in range(20))
FLOATS = ("f32", "bf16", "bf16xbf16")  # foe's formats beside which activations are not rounded to 8 bits
FLOAT_FILES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class System:
    """A peer with a model: a column that is measured in each round."""

    name: str
    peer: Peer
    model: Path
    options: tuple[str, ...] = ()  # further flags of foe

    def _tensors(self, flags) -> list[dict]:
        return json.loads(run(flags.foe, "inspect", self.model, "--tensors", "--json"))["tensors"]

    def parts(self, flags) -> dict[str, int]:
        """Returns the bytes of each part of the model in the system's own format."""
        if self.peer.reads == "gguf":
            return json.loads(run(self.peer.python(flags.environments), HERE / "to_gguf.py", self.model, "--parts"))
        if self.peer.reads == "transformers":
            return report.folder_parts(self.model)
        parts: dict[str, int] = {}
        for tensor in self._tensors(flags):
            part = report.part_of(tensor["name"])
            parts[part] = parts.get(part, 0) + tensor["bytes"]
        return parts

    def arithmetic(self, flags) -> str:
        """Returns what most products multiply, a key of report.PEAKS."""
        if self.peer.reads == "transformers" or "--dtype=bf16xbf16" in self.options:
            return "bf16"
        if self.peer.reads == "gguf":
            return "f32" if self.model.stem.endswith(FLOAT_FILES) else "integers"
        tensors = [tensor for tensor in self._tensors(flags) if report.part_of(tensor["name"]) in ("experts", "attention")]
        return "integers" if sum(t["bytes"] if t["format"] in FLOATS else -t["bytes"] for t in tensors) < 0 else "f32"

    def options_of_driver(self, flags) -> list[str]:
        options = [f"--option={option}" for option in [*self.options, *flags.foe_option]]
        return ["--foe", str(flags.foe), *options] if self.peer.name == "foe" else []


def config_of(flags, model: Path) -> dict:
    return json.loads(run(flags.foe, "inspect", model, "--json"))["config"]


def agreement(flags, reference: list, system: System) -> dict:
    """Compares logits with those of `foe logits REFERENCE...`."""
    with tempfile.TemporaryDirectory(dir=flags.dir) as folder:
        logits = Path(folder) / "logits.safetensors"
        run(flags.foe, "logits", *reference, "--tokens", TOKENS, "--output", logits, "--threads", flags.threads)
        return json.loads(run(system.peer.python(flags.environments), HERE / "drive_llama.py", "logits", system.model, "--tokens", TOKENS,
                              "--against", logits, "--threads", flags.threads, "--flash-attn", "off"))


def warm_page_cache(path: Path) -> None:
    for file in path.glob("*.safetensors") if path.is_dir() else [path]:
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass


def limits(flags, model: Path) -> dict:
    inspect = run(flags.foe, "inspect", model, "--roofline", "--threads", flags.threads, "--json")
    return {key: value for key, value in json.loads(inspect)["roofline"].items() if key.endswith("_per_second")}


def possible(flags, config: dict) -> tuple[list[int], list[points.Decode], list[dict]]:
    """Returns the points that fit the model's context, and those that do not."""
    most = config["max_position_embeddings"]
    fits = {report.point_name(point): points.positions_of(point, flags.repetitions) <= most
            for point in points.all_points(flags.prefill, flags.decode)}
    prefill = [tokens for tokens in flags.prefill if fits[report.point_name(points.prefill_point(tokens))]]
    decode = [points.Decode([n for n in load.streams if fits[report.point_name(points.decode_point(n, load.positions))]], load.positions)
              for load in flags.decode]
    return prefill, decode, [point | {"cannot": f"the model's context is {most:,} positions"}
                             for point in points.all_points(flags.prefill, flags.decode) if not fits[report.point_name(point)]]


def measure_system(flags, system: System, config: dict) -> dict:
    """Returns what the driver wrote, or the reason why it did not."""
    warm_page_cache(system.model)
    prefill, decode, cannot = possible(flags, config)
    with tempfile.TemporaryDirectory(dir=flags.dir) as folder:
        out = Path(folder) / "points.json"
        driver, *first = system.peer.driver
        command = [system.peer.python(flags.environments), HERE / driver, *first, system.model, "--json", out,
                   *points.as_arguments(prefill, decode, flags), *system.options_of_driver(flags)]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=system.peer.environment(flags.threads))
        if done.returncode != 0 or not out.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
            return {"failed": f"its driver ended with {done.returncode}: {lines[-1][:300]}", "stderr": done.stderr[-4000:]}
        result = json.loads(out.read_text("utf-8"))
        return result | {"points": result["points"] + cannot}


def processor_seconds() -> tuple[float, float]:
    """Returns how long all processors were taken since the machine started, and how long by this script and what it ran."""
    user, nice, system, _idle, _io, irq, softirq, steal = map(int, Path("/proc/stat").read_text("utf-8").split()[1:9])
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return ((user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"),
            sum(usage.ru_utime + usage.ru_stime for usage in own))


def measure(flags, systems: list[System], config: dict, title: str) -> dict:
    say(title)
    start, (busy, own) = time.perf_counter(), processor_seconds()
    result = {"limits": limits(flags, systems[0].model), "systems": {}}
    for system in systems:
        begun = time.perf_counter()
        result["systems"][system.name] = measured = measure_system(flags, system, config)
        say(f"  {system.name}: {measured.get('failed', 'measured')}, {time.perf_counter() - begun:.0f} s")
    seconds, (busy_now, own_now) = time.perf_counter() - start, processor_seconds()
    others = (busy_now - busy - (own_now - own)) / (seconds * os.cpu_count())
    return result | {"others": max(0.0, others)}
