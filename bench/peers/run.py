#!/usr/bin/env python3
"""foe beside llama.cpp: the same random weights, the same cores, in turn (foe, llama.cpp, foe, llama.cpp, ...).

    bench/peers/run.py DIR [--shape olmoe] [--format int4] [--rounds 2] [--json FILE]

Installs llama.cpp through its package llama-cpp-python into build/peers-venv-openmp, once: that compiles for ten minutes. Then, for
each shape (olmoe, qwen3-moe-24l) and format (int8, int4, bf16):

  1. makes a folder with random weights (`foe bench make-model`), converts it (`foe convert`) and writes the same weights as
     GGUF: F16 beside foe's bf16, Q8_0 beside int8, Q4_0 beside int4, each for all matrices but the router;
  2. checks that both compute the same function: the logits of 20 tokens, by two layers in f32, and by the models to be measured;
  3. measures in rounds, a process for each: prefill of one prompt of 128, 512 and 2,048 tokens; decoding of 1, 4, 8, 16 and 32
     streams with prompts of 128 tokens; peak memory; the time to a first token when the page cache has the file. Tokens are
     random and nothing is sampled: a step ends with the logits of each sequence's last token. foe: `foe bench engine`;
     llama.cpp: drive_llama.py, whose Python and its start count in neither memory nor time;
  4. prints a table: tokens/s (median, 10th to 90th percentile of all rounds), the share of the limit, and the ratio (of medians;
     in the round where it is least and in that where it is most). Limits are measured before each round: bytes that a decode
     step must read, in the system's own format, over the bandwidth; a prompt's operations over the peak of the arithmetic.
     Where the table says that other processes took processor time, measure again: llama.cpp suffers more from them than foe.

KV caches have 16 bits an element in both. llama.cpp chooses its attention kernel, and repacks Q4_0 when it loads: memory and
start-up have that. Files stand in DIR and are deleted when they have been measured (--keep: not, which takes 60 GB; else 29 GB are
enough). Two files of a model must fit into memory: as those of olmoe in bf16 would not, it has half its layers there.
`--prepare` only makes the models, for a run with --keep that measures them. A shape and a format take 2 minutes (qwen3-moe-24l)
to 7 (olmoe), olmoe's conversions another 5. Needs Python 3.11, a C++ compiler, PyPI, and build/foe.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import report

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
SHAPES = {"olmoe": 16, "qwen3-moe-24l": 24}  # and their layers
PEER_FORMATS = {"int8": "Q8_0", "int4": "Q4_0", "bf16": "F16"}
DEFAULT_LAYERS = {("olmoe", "bf16"): 8}  # both files of all 16 are 28 GB
PROMPT = 128
TOKENS = ",".join(str(7 + 41 * i) for i in range(20))
# In f32, of the largest logit: sums of a few thousand products in another order, over two layers.
MOST_DIFFERENCE = 1e-4
# What the library does not need is not built.
CMAKE_ARGS = ["-DGGML_NATIVE=ON", "-DGGML_LLAMAFILE=ON", "-DLLAVA_BUILD=OFF", "-DLLAMA_OPENSSL=OFF",
              *(f"-DLLAMA_BUILD_{what}=OFF" for what in ("TOOLS", "SERVER", "EXAMPLES", "TESTS"))]
# llama.cpp's threads, its default first: a build and an environment for each.
OPENMP = {"openmp": "ON", "own": "OFF"}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*command) -> str:
    """Returns what the command printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"peers: {' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def environment_of(flags) -> Path:
    return ROOT / "build" / f"peers-venv-{flags.peer_threads}"


def helper(flags, script: str, *arguments) -> str:
    return run(environment_of(flags) / "bin" / "python", Path(__file__).with_name(script), *arguments)


def cmake_args(flags) -> str:
    return " ".join([*CMAKE_ARGS, f"-DGGML_OPENMP={OPENMP[flags.peer_threads]}"])


def install_peer(flags) -> None:
    # Without CI, the tool lets tests go on without Python; pip's cache does not know what a wheel was built with.
    environment = os.environ | {"CI": "true", "PIP_NO_CACHE_DIR": "1", "CMAKE_ARGS": cmake_args(flags),
                                "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count())}
    subprocess.run([ROOT / "tools" / "venv.sh", environment_of(flags), REQUIREMENTS], env=environment, check=True,
                   stdout=sys.stderr)


def made(path: Path, make) -> Path:
    """Returns the path; what is half made has another name."""
    if not path.exists():
        say(f"peers: making {path}")
        part = path.with_name(f"{path.name}.part")
        remove(part)
        make(part)
        part.rename(path)
    return path


def make_folder(flags, shape: str, layers: int | None, dtype: str) -> Path:
    cut = ["--layers", layers] if layers else []
    return made(flags.dir / f"{shape}-{layers or 'all'}-{dtype}",
                lambda out: run(flags.foe, "bench", "make-model", out, "--shape", shape, "--form", "moe", "--dtype", dtype, *cut,
                                "--tokenizer", ROOT / "models" / "foe-8m"))


def make_gguf(flags, folder: Path, kind: str) -> Path:
    return made(folder.with_name(f"{folder.name}-{kind}.gguf"),
                lambda out: helper(flags, "to_gguf.py", folder, out, "--type", kind))


def make_foe_model(flags, folder: Path, form: str) -> Path:
    if form == "bf16":
        return folder
    return made(folder.with_name(f"{folder.name}-{form}"), lambda out: run(flags.foe, "convert", folder, out, "--quantize", form))


def remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def agreement(flags, folder: Path, model: Path) -> dict:
    logits = flags.dir / "logits.safetensors"
    run(flags.foe, "logits", folder, "--tokens", TOKENS, "--output", logits, "--threads", flags.threads)
    result = helper(flags, "drive_llama.py", "logits", model, "--tokens", TOKENS, "--against", logits, "--threads", flags.threads,
                    "--flash-attn", "off")
    logits.unlink()
    return json.loads(result)


def check_function(flags, shape: str) -> dict:
    """Two layers in f32: what differs is the order of sums."""
    folder = make_folder(flags, shape, 2, "f32")
    model = make_gguf(flags, folder, "F32")
    found = agreement(flags, folder, model)
    print(report.agreement_line(f"{shape}, 2 layers in f32", found), flush=True)
    if found["largest_difference"] > MOST_DIFFERENCE * found["largest_logit"]:
        raise SystemExit(f"peers: expected both to compute the same function up to {MOST_DIFFERENCE} of the largest logit")
    if not flags.keep:
        remove(folder, model)
    return found


def warm_page_cache(path: Path) -> None:
    for file in path.glob("*.safetensors") if path.is_dir() else [path]:
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass


def point_flags(flags) -> list[str]:
    return ["--prefill", flags.prefill, "--decode", flags.decode, "--prompt-len", str(PROMPT), "--seconds", str(flags.seconds),
            "--threads", str(flags.threads), "--json", str(flags.dir / "points.json")]


def run_foe(flags, folder: Path) -> dict:
    """Returns the points, seconds from the start of the process to its first token, and its peak memory."""
    warm_page_cache(folder)
    start = time.perf_counter()
    process = subprocess.Popen([flags.foe, "bench", "engine", folder, *point_flags(flags)], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    first_token_s = time.perf_counter() - start
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or not line.startswith("first token"):
        raise SystemExit(f"peers: foe bench engine ended with {process.returncode}")
    points = json.loads((flags.dir / "points.json").read_text("utf-8"))
    return points | {"first_token_s": first_token_s, "peak_bytes": 1024 * usage.ru_maxrss}


def run_peer(flags, model: Path) -> dict:
    warm_page_cache(model)
    helper(flags, "drive_llama.py", "engine", model, *point_flags(flags), "--flash-attn", flags.flash_attn)
    return json.loads((flags.dir / "points.json").read_text("utf-8"))


def measure_limits(flags, folder: Path) -> dict:
    inspect = run(flags.foe, "inspect", folder, "--roofline", "--context", PROMPT, "--threads", flags.threads, "--json")
    return {key: value for key, value in json.loads(inspect)["roofline"].items() if key.endswith("_per_second")}


def overall_limits(rounds: list[dict]) -> dict:
    """Returns the limits of all rounds: memory has a speed that changes, a processor has a peak."""
    return {key: report.percentile([limits[key] for limits in rounds], 0.5 if key == "read_bytes_per_second" else 1)
            for key in rounds[0]}


def processor_seconds() -> tuple[float, float]:
    """Returns how long all processors were taken since the machine started, and how long by this script and what it ran."""
    user, nice, system, _idle, _io, irq, softirq, steal = map(int, Path("/proc/stat").read_text("utf-8").split()[1:9])
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return ((user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"),
            sum(usage.ru_utime + usage.ru_stime for usage in own))


def measure_round(flags, number: int, folder: Path, model: Path) -> dict:
    say(f"peers: round {number + 1} of {flags.rounds}")
    start, (busy, own) = time.perf_counter(), processor_seconds()
    result = {"limits": measure_limits(flags, folder), "foe": run_foe(flags, folder), "peer": run_peer(flags, model)}
    seconds, (busy_now, own_now) = time.perf_counter() - start, processor_seconds()
    others = (busy_now - busy - (own_now - own)) / (seconds * os.cpu_count())
    return result | {"others": max(0.0, others)}


def measure(flags, shape: str, form: str, source: Path, folder: Path, model: Path) -> dict:
    config = json.loads((source / "config.json").read_text("utf-8"))
    parts = {"foe": report.folder_parts(folder), "peer": json.loads(helper(flags, "to_gguf.py", model, "--parts"))}
    found = agreement(flags, folder, model)
    rounds = [measure_round(flags, number, folder, model) for number in range(flags.rounds)]
    limits = overall_limits([a_round["limits"] for a_round in rounds])
    return {"shape": shape, "layers": config["num_hidden_layers"], "model_layers": SHAPES[shape], "format": form,
            "peer_format": PEER_FORMATS[form], "threads": flags.threads, "limits": limits, "parts": parts, "agreement": found,
            "points": report.compare_points(rounds, lambda system, point: report.point_limit(
                config, parts[system], point, limits, PROMPT, form != "bf16")),
            "peak_bytes": report.compare_costs(rounds, "peak_bytes"),
            "first_token_s": report.compare_costs(rounds, "first_token_s"), "rounds": rounds}


def compare(flags, shape: str, form: str) -> dict | None:
    """Makes the models and, unless it is asked for no more, measures."""
    source = make_folder(flags, shape, flags.layers or DEFAULT_LAYERS.get((shape, form)), "bf16")
    folder, model = make_foe_model(flags, source, form), make_gguf(flags, source, PEER_FORMATS[form])
    result = None if flags.prepare else measure(flags, shape, form, source, folder, model)
    if not flags.keep:
        remove(model, *([folder] if folder != source else []))
    return result


def machine(flags) -> dict:
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
                if line.startswith("model name")), "unknown")
    peer = next(line for line in REQUIREMENTS.read_text("utf-8").splitlines() if line.startswith("llama-cpp-python"))
    return {"cpu": cpu, "cores": os.cpu_count(), "commit": run("git", "-C", ROOT, "describe", "--always", "--dirty").strip(),
            "peer": peer.strip(), "cmake_args": cmake_args(flags)}


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path, help="folder for the models, on a disk with room")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="shape of the model; may be given twice (default: both)")
    parser.add_argument("--format", action="append", choices=PEER_FORMATS,
                        help="format of the weights; may be given several times (default: all)")
    parser.add_argument("--layers", type=int, help="cut the models of both sides to so many layers (default: all)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds, in which both sides take turns (default: %(default)s)")
    parser.add_argument("--prefill", default="128,512,2048", help="tokens of a prompt (default: %(default)s)")
    parser.add_argument("--decode", default="1,4,8,16,32", help="streams that decode together (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="time for each point in each round (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="threads of each side (default: all cores, here %(default)s)")
    parser.add_argument("--peer-threads", choices=OPENMP, default="openmp", help="llama.cpp's thread pool: OpenMP's or its own (default: %(default)s)")
    parser.add_argument("--flash-attn", choices=("auto", "on", "off"), default="auto", help="llama.cpp's flash attention (default: %(default)s)")
    parser.add_argument("--foe", type=Path, default=ROOT / "build" / "foe", help="the program (default: build/foe)")
    parser.add_argument("--prepare", action="store_true", help="only make the models, and keep them for a run with --keep")
    parser.add_argument("--keep", action="store_true", help="do not delete the models, for the next run")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    flags = parser.parse_args()
    flags.keep |= flags.prepare
    return flags


def main() -> None:
    flags = parse_flags()
    flags.dir.mkdir(parents=True, exist_ok=True)
    install_peer(flags)
    result = {"machine": machine(flags), "functions": {}, "comparisons": []}
    print(json.dumps(result["machine"]), flush=True)
    for shape in flags.shape or SHAPES:
        result["functions"][shape] = check_function(flags, shape)
        for form in flags.format or PEER_FORMATS:
            comparison = compare(flags, shape, form)
            if comparison is None:
                continue
            result["comparisons"].append(comparison)
            print("\n" + report.table(comparison), flush=True)
            if flags.json:
                flags.json.write_text(json.dumps(result, indent=1), "utf-8")
        if not flags.keep:
            remove(*flags.dir.glob(f"{shape}-*-bf16"))


if __name__ == "__main__":
    main()
