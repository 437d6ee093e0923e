"""How much formats of weights change a model's answers: foe's beside those of llama.cpp, on the same weights and text.

    build/peers/llama.cpp/bin/python bench/peers/quality.py MODEL.gguf TEXT DIR --foe build/foe     # after bench/peers/peers.py llama.cpp

With --calibrate OTHER, which must be another text, foe's formats with int4 are there twice: as they are, and calibrated by it.

MODEL.gguf has the weights that count as exact, whatever their type. llama.cpp writes them to DIR in F32, and from there in each
of its types. The reference is foe in f32, which float64 checks (tests/oracle). Each format computes the logits of the same windows of
TEXT, and the table has, over all positions: the Kullback-Leibler divergence of the reference and the format, in nats, with its
standard error over positions; how often both have the same largest logit; and the perplexity of the text. Files of llama.cpp's types
run in both engines, since both round activations to 8 bits, each in its own way. "Bits" are those of foe's memory, without an
embedding that is mapped, or of llama.cpp's file, divided by the parameters.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import llama_cpp.llama_cpp as llama
import numpy as np

import drive_llama
from requantize import TYPES, write_type
from tensor_files import TensorFile

FORMATS = ("int8", "int4,attention=int8,head=int8", "int4,head=int8", "int4")


def run(*command) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"quality: {' '.join(map(str, command))[:300]}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def tokens_of(model: Path, text: bytes, most: int) -> list[int]:
    params = llama.llama_model_default_params()
    params.vocab_only = True
    vocab = llama.llama_model_get_vocab(llama.llama_model_load_from_file(str(model).encode(), params))
    room = (llama.llama_token * (len(text) + 8))()
    count = llama.llama_tokenize(vocab, text, len(text), room, len(room), False, True)
    if count < most:
        sys.exit(f"quality: expected a text of at least {most} tokens, got {count}")
    return list(room[:most])


def log_softmax(logits_TV: np.ndarray) -> np.ndarray:
    shifted_TV = logits_TV - logits_TV.max(-1, keepdims=True)
    return shifted_TV - np.log(np.exp(shifted_TV).sum(-1, keepdims=True))


def calibrated(flags, model: Path, quantize: str) -> Path:
    """The folder that foe makes of the model in these formats by the text --calibrate."""
    out = flags.dir / f"calibrated-{quantize}"
    if not out.exists():
        run(flags.foe, "convert", model, out, "--quantize", quantize, "--calibrate", flags.calibrate, "--calibrate-tokens",
            flags.calibrate_tokens, "--threads", flags.threads)  # fmt: skip
    return out


def foe_logits(flags, window: list[int], model: Path, *arguments) -> np.ndarray:
    tokens, out = flags.dir / "tokens.txt", flags.dir / "logits.safetensors"
    tokens.write_text(",".join(map(str, window)) + "\n", "utf-8")
    run(flags.foe, "logits", model, "--tokens", f"@{tokens}", "--output", out, "--threads", flags.threads, *arguments)
    return TensorFile(out).read("logits").astype(np.float64)


def llama_logits(flags, window: list[int], model: Path) -> np.ndarray:
    return drive_llama.logits_of(model, window, flags.threads)


class Score:
    def __init__(self) -> None:
        self.divergence, self.same, self.loss = [], [], []

    def add(self, expected_TV: np.ndarray, logits_TV: np.ndarray, window: list[int]) -> None:
        actual_TV = log_softmax(logits_TV)
        self.divergence += (np.exp(expected_TV) * (expected_TV - actual_TV)).sum(-1).tolist()
        self.same += (expected_TV.argmax(-1) == actual_TV.argmax(-1)).tolist()
        self.loss += (-actual_TV[np.arange(len(window) - 1), window[1:]]).tolist()

    def row(self, name: str, bits: float) -> str:
        error = np.std(self.divergence) / np.sqrt(len(self.divergence))
        return (f"| {name} | {bits:.2f} | {np.mean(self.divergence):.4f} ± {error:.4f} | {100 * np.mean(self.same):.1f} % "
                f"| {np.exp(np.mean(self.loss)):.3f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="GGUF file whose weights count as exact")
    parser.add_argument("text", type=Path, help="UTF-8 text")
    parser.add_argument("dir", type=Path, help="folder for what is written")
    parser.add_argument("--foe", type=Path, default=Path("build/foe"), help="the program (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=4, help="windows of the text (default: %(default)s)")
    parser.add_argument("--window", type=int, default=512, help="tokens of each (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=2000, help="bytes of the text that are left out first (default: %(default)s)")
    parser.add_argument("--calibrate", type=Path, help="UTF-8 text for foe's int4, which must not be the one that is scored")
    parser.add_argument("--calibrate-tokens", type=int, default=16384, help="tokens of it at most (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: %(default)s)")
    flags = parser.parse_args()
    if flags.calibrate and flags.calibrate.samefile(flags.text):
        sys.exit(f"quality: expected another text to calibrate by than the one that is scored, got {flags.text} twice")
    flags.dir.mkdir(parents=True, exist_ok=True)
    llama.llama_backend_init()

    files = {name: flags.dir / f"{name}.gguf" for name in TYPES}
    for name, file in files.items():
        write_type(flags.model if name == "F32" else files["F32"], file, name, flags.threads)
    exact = files["F32"]

    def bits_in_foe(model: Path, *arguments) -> float:
        inspected = json.loads(run(flags.foe, "inspect", model, "--json", *arguments))
        return 8 * inspected["ranks"][0]["weight_bytes"] / inspected["parameters"]

    parameters = json.loads(run(flags.foe, "inspect", exact, "--json"))["parameters"]
    rows = [("foe bf16", bits_in_foe(exact) / 2, lambda w: foe_logits(flags, w, exact, "--dtype", "bf16"))]
    for quantize in FORMATS:
        rows.append((f"foe {quantize}", bits_in_foe(exact, "--quantize", quantize),
                     lambda w, q=quantize: foe_logits(flags, w, exact, "--quantize", q)))  # fmt: skip
    for quantize in FORMATS[1:] if flags.calibrate else ():
        folder = calibrated(flags, exact, quantize)
        rows.append((f"foe {quantize}, calibrated", bits_in_foe(folder), lambda w, f=folder: foe_logits(flags, w, f)))
    for name in list(TYPES)[1:]:
        file = files[name]
        rows.append((f"llama.cpp {name}", 8 * file.stat().st_size / parameters, lambda w, f=file: llama_logits(flags, w, f)))
        rows.append((f"foe, {name} file", bits_in_foe(file), lambda w, f=file: foe_logits(flags, w, f)))

    tokens = tokens_of(exact, flags.text.read_bytes()[flags.skip :], flags.windows * flags.window)
    scores = {name: Score() for name, _, _ in rows} | {"f32": Score()}
    for at in range(0, len(tokens), flags.window):
        window = tokens[at : at + flags.window]
        print(f"window {at // flags.window + 1} of {flags.windows}", file=sys.stderr, flush=True)
        logits_TV = foe_logits(flags, window, exact, "--dtype", "f32")
        expected_TV = log_softmax(logits_TV)
        scores["f32"].add(expected_TV, logits_TV, window)
        for name, _, compute in rows:
            scores[name].add(expected_TV, compute(window), window)
    print("| | bits | KL | same largest | perplexity |\n|---|---|---|---|---|")
    print(scores["f32"].row("f32", 32))
    for name, bits, _ in rows:
        print(scores[name].row(name, bits))


if __name__ == "__main__":
    main()
