#!/usr/bin/env python3
"""foe beside the engines of peers.py: the same weights, the same cores, in turn (foe, llama.cpp, ik_llama.cpp, vLLM, foe, ...).

    bench/peers/run.py DIR --gguf FILE.gguf [--rounds 5] [--json OUT]                a GGUF file, as each engine serves it
    bench/peers/run.py DIR --shape qwen3-moe-24l --format int4 [--json OUT]          random weights of a shape
    bench/peers/run.py DIR --quick                                                   both shapes, all formats, fewer points

Installs the peers (peers.py says how long that takes), then for each model:

  1. makes what each engine reads. Of a shape: a folder with random weights (`foe bench make-model`), converted (`foe convert`), as GGUF in
     Q4_0 beside foe's int4, Q8_0 beside int8 and F16 beside bf16 and bf16xbf16 (which is for processors with AMX), and as a folder
     for vLLM, in bf16 beside all of them. Of a GGUF file: the file itself for all but vLLM, which gets what it decodes to, in bf16; with
     --also-quantize foe in its own formats, too, which round the file's numbers a second time;
  2. compares logits of 20 tokens with those of foe. Of a shape, two layers in f32 must agree, too;
  3. measures in rounds, a process for each engine (points.py says what a point is): prompts of --prefill tokens, --decode streams,
     peak memory, and the time to a first token when the page cache has the file;
  4. prints a table in Markdown: tokens/s, the share of the limit that was measured before each round (decode: bytes that a step must
     read, in the engine's own format, over the bandwidth; prefill: operations over the peak of the arithmetic), and foe's speed over that
     of the strongest peer, in the median and in the rounds with least and most. What an engine could not measure stands below with the
     reason. Where other processes took processor time, measure again.

KV caches have 16 bits an element. Engines choose their own kernels; the drivers say which options they set and why. Files stand in
DIR; those of a format are deleted when it has been measured (--keep: not, which takes 90 GB for all; --prepare only makes them).
Two files of a model must fit into memory: olmoe has half its layers in bf16. Needs Python 3.11, a C++ compiler, PyPI and foe.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import points
import report
import rounds
from models import SHAPES, Models
from peers import PEERS, ROOT, add_flags as add_peer_flags, processor_has

FORMATS = ("int4", "int8", "bf16", "bf16xbf16")
DEFAULT_FORMATS = FORMATS if processor_has("amx_bf16") else FORMATS[:3]
DEFAULT_LAYERS = {("olmoe", form): 8 for form in ("bf16", "bf16xbf16")}  # both files of all 16 are 28 GB
LONG_POINTS = {"prefill": [128, 512, 2048, 8192], "decode": [points.decode_load("1,4,16,32@128"), points.decode_load("1@8192")]}
QUICK_POINTS = {"prefill": [128, 512], "decode": [points.decode_load("1,4,16@128")]}
# Of the largest logit, over two layers in f32: sums of a few thousand products in another order; or a KV cache in f16.
MOST_DIFFERENCE = {"llama.cpp": 1e-4, "ik_llama.cpp": 2e-3}


def peers_of(flags, *kinds: str):
    return [PEERS[name] for name in flags.peer if PEERS[name].reads in kinds]


def compare(flags, title: str, systems: list, references: dict[str, list]) -> dict:
    """Measures systems in turn and prints their table. `references`: by system, what `foe logits` takes to be compared with."""
    config = rounds.config_of(flags, systems[0].model)
    agreement = {system.name: rounds.agreement(flags, references[system.name], system) for system in systems if system.name in references}
    result = {"title": title, "threads": flags.threads, "config": config, "points": points.all_points(flags.prefill, flags.decode),
              "systems": [{"name": system.name, "peer": system.peer.name, "version": system.peer.version(), "parts": system.parts(flags),
                           "arithmetic": system.arithmetic(flags)} for system in systems],
              "agreement": agreement, "notes": [PEERS[name].cannot for name in flags.peer if PEERS[name].cannot] + [
                  f"{name}: memory and time to a first token are of {PEERS[name].counts}" for name in {s.peer.name: 0 for s in systems}],
              "rounds": [rounds.measure(flags, systems, config, f"{title}, round {i + 1} of {flags.rounds}") for i in range(flags.rounds)]}
    report.compare(result)
    print("\n" + report.table(result), flush=True)
    return result


def check_function(flags, models: Models, shape: str) -> dict:
    """Two layers in f32: what differs is the order of sums."""
    found = {}
    for peer in peers_of(flags, "gguf"):
        folder = models.folder(shape, 2, "f32")
        system = rounds.System(f"{peer.name} F32", peer, models.gguf(folder, "F32", peer.name))
        found[peer.name] = rounds.agreement(flags, [folder], system)
        print(report.agreement_line(f"{shape}, 2 layers in f32, foe and {peer.name}", found[peer.name]), flush=True)
        if found[peer.name]["largest_difference"] > MOST_DIFFERENCE[peer.name] * found[peer.name]["largest_logit"]:
            raise SystemExit(f"peers: expected the same function up to {MOST_DIFFERENCE[peer.name]} of the largest logit")
    return found


def compare_shape(flags, models: Models, shape: str, forms: list[str]) -> dict | None:
    """Of the formats in one table: each of foe's and the peers' beside them, and those that peers have in any case."""
    source = models.folder(shape, flags.layers or DEFAULT_LAYERS.get((shape, forms[-1])), "bf16")
    systems, references = {}, {}
    for form in forms:
        options = ("--dtype=bf16xbf16",) if form == "bf16xbf16" else ()
        foe = rounds.System(" ".join(["foe", form, *flags.foe_option]), PEERS["foe"], models.converted(source, form), options)
        systems[foe.name] = foe
        for peer in peers_of(flags, "gguf"):
            system = rounds.System(f"{peer.name} {peer.formats[form]}", peer, models.gguf(source, peer.formats[form], peer.name))
            systems[system.name], references[system.name] = system, [foe.model]
    for peer in peers_of(flags, "transformers"):
        system = rounds.System(f"{peer.name} bf16", peer, models.transformers_folder(source, shape))
        systems[system.name] = system
    layers = json.loads((source / "config.json").read_text("utf-8"))["num_hidden_layers"]
    title = f"{shape}, {layers} of {SHAPES[shape]} layers, {', '.join(forms)}"
    result = None if flags.prepare else compare(flags, title, list(systems.values()), references)
    if not flags.keep:
        models.remove_all_but(source)
    return result


def compare_file(flags, models: Models, file: Path) -> dict | None:
    foe = PEERS["foe"]
    systems = [rounds.System("foe", foe, file)]
    systems += [rounds.System(f"foe {form}", foe, models.converted_file(file, form)) for form in flags.also_quantize]
    if file.suffix == ".gguf":
        systems += [rounds.System(peer.name, peer, file) for peer in peers_of(flags, "gguf")]
        systems += [rounds.System(f"{peer.name} bf16", peer, models.decoded(file)) for peer in peers_of(flags, "transformers")]
    references = {system.name: [file, "--dtype", "f32"] for system in systems if system.peer.reads == "gguf"}
    return None if flags.prepare else compare(flags, file.name, systems, references)


def machine() -> dict:
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
                if line.startswith("model name")), "unknown")
    git = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)  # a tarball has none
    return {"cpu": cpu, "cores": os.cpu_count(), "commit": git.stdout.strip() or "unknown"}


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, help="folder for the models, on a disk with room")
    parser.add_argument("--gguf", type=Path, action="append", default=[], help="GGUF file to measure, or a folder for foe alone; may be given several times")
    parser.add_argument("--also-quantize", action="append", default=[], choices=("int4", "int8"),
                        help="with --gguf: measure foe with the file converted to this, too; may be given twice")
    parser.add_argument("--also-type", action="append", default=[], metavar="TYPE",
                        help="with --gguf: measure the file in this type, too, written by llama.cpp: Q8_0, Q6_K, Q4_K_M, Q4_0; may be given again")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="shape of random weights; may be given twice (default: both)")
    parser.add_argument("--format", action="append", choices=FORMATS,
                        help="format of the weights; may be given several times (default: all, bf16xbf16 only with AMX)")
    parser.add_argument("--together", action="store_true",
                        help="all formats in one table, so that each meets the strongest peer of any format (default: a table for each)")
    parser.add_argument("--peer", action="append", choices=PEERS,
                        help="what is measured beside foe; may be given several times; foe: nothing (default: all)")
    parser.add_argument("--layers", type=int, help="cut the models of all sides to so many layers (default: all)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, in which all take turns (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="prompts of 128 and 512 tokens, 1, 4 and 16 streams, half a second each")
    points.add_measuring_flags(parser)
    parser.set_defaults(prefill=None, threads=len(os.sched_getaffinity(0)))
    parser.add_argument("--foe", type=Path, default=ROOT / "build" / "foe", help="the program (default: build/foe)")
    parser.add_argument("--foe-option", action="append", default=[], metavar="FLAG",
                        help="a further flag of `foe bench engine`, as in --foe-option=--attention=bf16; may be given again")
    add_peer_flags(parser)
    parser.add_argument("--prepare", action="store_true", help="only install peers and make models, for a run with --keep")
    parser.add_argument("--keep", action="store_true", help="do not delete the models, for the next run")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    flags = parser.parse_args()
    flags.keep |= flags.prepare
    if flags.quick:
        flags.seconds = min(flags.seconds, 0.5)
    chosen = QUICK_POINTS if flags.quick else LONG_POINTS
    flags.prefill = chosen["prefill"] if flags.prefill is None else flags.prefill
    flags.decode = chosen["decode"] if flags.decode is None else flags.decode
    flags.peer = flags.peer or list(PEERS)
    return flags


def main() -> None:
    flags = parse_flags()
    flags.dir.mkdir(parents=True, exist_ok=True)
    for name in flags.peer:
        PEERS[name].install(flags.environments, flags.jobs)
    models = Models(flags)
    result = {"machine": machine(), "functions": {}, "comparisons": []}
    print(json.dumps(result["machine"]), flush=True)

    def keep(comparison: dict | None) -> None:
        if comparison:
            result["comparisons"].append(comparison)
        if comparison and flags.json:
            flags.json.write_text(json.dumps(result, indent=1), "utf-8")

    for file in flags.gguf:
        for model in [file, *(models.requantized(file, kind) for kind in flags.also_type)]:
            keep(compare_file(flags, models, model))
    for shape in () if flags.gguf else flags.shape or SHAPES:
        result["functions"][shape] = check_function(flags, models, shape)
        forms = list(flags.format or DEFAULT_FORMATS)
        for some in [forms] if flags.together else [[form] for form in forms]:
            keep(compare_shape(flags, models, shape, some))
        if not flags.keep:
            models.remove_all_but()


if __name__ == "__main__":
    sys.exit(main())
