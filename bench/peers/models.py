"""The files that systems read: random weights of a shape, or a GGUF file, in the form that each of them takes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from peers import HERE, PEERS, ROOT

SHAPES = {"olmoe": 16, "qwen3-moe-24l": 24}  # and their layers
# What differs between foe's config.json of a shape and transformers': see to_gguf.family_of for which is which.
TRANSFORMERS = {
    "olmoe": {"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe"},
    "qwen3-moe-24l": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "decoder_sparse_step": 1,
                      "mlp_only_layers": [], "intermediate_size": 2048},
}  # fmt: skip


def say(text: str) -> None:
    print(f"peers: {text}", file=sys.stderr, flush=True)


def run(*command, environment=None) -> str:
    """Returns what the command printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"peers: {' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def made(path: Path, make) -> Path:
    """Returns the path; what is half made has another name."""
    if not path.exists():
        say(f"making {path}")
        part = path.with_name(f"{path.name}.part")
        remove(part)
        make(part)
        part.rename(path)
    return path


def padded(tokenizer: dict, size: int) -> dict:
    """The tokenizer with a text for each id of a larger vocabulary, since random weights choose any."""
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"[{i}]": i for i in range(len(vocabulary), size)}
    return tokenizer


class Models:
    def __init__(self, flags):
        self.dir, self.foe, self.environments = flags.dir, flags.foe, flags.environments
        self.made_here: list[Path] = []

    def helper(self, peer: str, script: str, *arguments) -> str:
        return run(PEERS[peer].python(self.environments), HERE / script, *arguments)

    def keep_track(self, path: Path) -> Path:
        self.made_here.append(path)
        return path

    def folder(self, shape: str, layers: int | None, dtype: str) -> Path:
        cut = ["--layers", layers] if layers else []
        return self.keep_track(made(self.dir / f"{shape}-{layers or 'all'}-{dtype}", lambda out: run(
            self.foe, "bench", "make-model", out, "--shape", shape, "--form", "moe", "--dtype", dtype, *cut, "--tokenizer",
            ROOT / "models" / "foe-8m")))

    def converted(self, folder: Path, form: str) -> Path:
        if form in ("bf16", "bf16xbf16"):
            return folder
        return self.keep_track(made(folder.with_name(f"{folder.name}-{form}"), lambda out: run(
            self.foe, "convert", folder, out, "--quantize", form)))

    def gguf(self, folder: Path, kind: str, peer: str) -> Path:
        return self.keep_track(made(folder.with_name(f"{folder.name}-{kind}.gguf"), lambda out: self.helper(
            peer, "to_gguf.py", folder, out, "--type", kind)))

    def transformers_folder(self, folder: Path, shape: str) -> Path:
        """The same weights, behind a config.json as the hub's."""
        def write(out: Path) -> None:
            out.mkdir()
            config = json.loads((folder / "config.json").read_text("utf-8"))
            config |= TRANSFORMERS[shape] | {"torch_dtype": "bfloat16", "attention_bias": False}
            (out / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
            for file in folder.iterdir():
                if file.name == "tokenizer.json":
                    (out / file.name).write_text(json.dumps(padded(json.loads(file.read_text("utf-8")), config["vocab_size"])), "utf-8")
                elif file.name != "config.json":
                    (out / file.name).symlink_to(file.resolve())

        return self.keep_track(made(folder.with_name(f"{folder.name}-transformers"), write))

    def converted_file(self, model: Path, form: str) -> Path:
        """A GGUF file in foe's own format: its numbers are rounded a second time."""
        return self.keep_track(made(self.dir / f"{model.stem}-{form}", lambda out: run(self.foe, "convert", model, out, "--quantize", form)))

    def requantized(self, model: Path, kind: str) -> Path:
        return self.keep_track(made(self.dir / f"{model.stem}-{kind}.gguf", lambda out: self.helper(
            "llama.cpp", "requantize.py", model, out, kind)))

    def decoded(self, model: Path) -> Path:
        """A GGUF file's weights in bf16, as a folder, by transformers."""
        return self.keep_track(made(self.dir / f"{model.stem}-transformers", lambda out: self.helper(
            "vLLM", "decode_gguf.py", model, out)))

    def remove_all_but(self, *kept: Path) -> None:
        remove(*(path for path in self.made_here if path not in kept))
        self.made_here = [path for path in self.made_here if path in kept]
