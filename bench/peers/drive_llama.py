"""Drives llama.cpp through the low-level interface of llama-cpp-python.

    drive_llama.py engine MODEL.gguf --json OUT   what `foe bench engine` does: the same points, the same JSON
    drive_llama.py logits MODEL.gguf --tokens 1,2,3 --against F.safetensors
                                                  compares logits with those of `foe logits`, and prints the agreement as JSON

A step's time is that of llama_decode and of waiting for the logits of each sequence's last token; batches are filled before it.
"""

import argparse
import json
import time
from pathlib import Path

import llama_cpp.llama_cpp as llama
import numpy as np

from tensor_files import TensorFile

FIRST_PROMPT = 16  # tokens, as foe's
DISTINCT_PROMPTS = 8  # of streams: the others get copies, in cells of their own
CELLS = 256  # a sequence's cells are a multiple
F32, F16 = 0, 1  # ggml types of the KV cache


def memory(field: str) -> int:
    """Bytes of this process, from /proc."""
    line = next(line for line in Path("/proc/self/status").read_text("utf-8").splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


class Context:
    """A context with one batch of at most `batch` tokens."""

    def __init__(self, model, flags, *, sequences: int, positions: int, batch: int, kv=F16):
        params = llama.llama_context_default_params()
        each = -(-positions // CELLS) * CELLS
        params.n_ctx, params.n_seq_max, params.n_batch, params.n_ubatch = sequences * each, sequences, batch, min(batch, 512)
        params.n_threads = params.n_threads_batch = flags.threads
        params.type_k = params.type_v = kv
        params.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[flags.flash_attn]
        self.pointer = llama.llama_init_from_model(model, params)
        if not self.pointer:
            raise SystemExit("drive_llama: expected llama.cpp to make a context, got none; is there enough memory?")
        self.memory = llama.llama_get_memory(self.pointer)
        self.batch = llama.llama_batch_init(batch, 0, 1)

    def fill(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Rows are (token, position, sequence, logits wanted)."""
        self.batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, wanted
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence

    def run(self) -> float:
        start = time.perf_counter()
        status = llama.llama_decode(self.pointer, self.batch)
        llama.llama_synchronize(self.pointer)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"drive_llama: expected llama_decode to return 0, got {status}")
        return seconds

    def close(self) -> None:
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.pointer)


def load(path: str):
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"drive_llama: expected a GGUF file that llama.cpp loads, got {path}")
    return model


def prompt_rows(tokens, sequence: int) -> list[tuple[int, int, int, bool]]:
    return [(int(token), i, sequence, i == len(tokens) - 1) for i, token in enumerate(tokens)]


def repeat(flags, run) -> list[float]:
    seconds = []
    while sum(seconds) <= flags.seconds and len(seconds) < flags.repetitions:
        seconds.append(run(len(seconds)))
    return seconds


def bench_prefill(model, flags, draw) -> list[dict]:
    longest = max(flags.prefill)
    context = Context(model, flags, sequences=1, positions=longest, batch=longest)

    def run(tokens: int) -> float:
        llama.llama_memory_clear(context.memory, False)
        context.fill(prompt_rows(draw(tokens), 0))
        return context.run()

    points = [{"load": "prefill", "sequences": 1, "tokens": tokens, "seconds": repeat(flags, lambda _: run(tokens))}
              for tokens in flags.prefill]
    context.close()
    return points


def bench_decode(model, flags, draw) -> list[dict]:
    streams = max(flags.decode)
    context = Context(model, flags, sequences=streams, positions=flags.prompt_len + 1 + flags.repetitions,
                      batch=max(streams, flags.prompt_len))
    for s in range(streams):
        if s < DISTINCT_PROMPTS:
            context.fill(prompt_rows(draw(flags.prompt_len), s))
            context.run()
        else:
            llama.llama_memory_seq_cp(context.memory, s % DISTINCT_PROMPTS, s, -1, -1)

    def run(count: int, step: int) -> float:
        context.fill([(int(token), flags.prompt_len + step, s, True) for s, token in enumerate(draw(count))])
        return context.run()

    points = []
    for count in flags.decode:
        for s in range(streams):
            llama.llama_memory_seq_rm(context.memory, s, flags.prompt_len, -1)
        run(count, 0)  # does not count
        seconds = repeat(flags, lambda i: run(count, i + 1))
        points.append({"load": "decode", "sequences": count, "tokens": 1, "seconds": seconds})
    context.close()
    return points


def first_token(path: str, flags, draw):
    """Returns the model, and seconds until it has made the logits of a first token."""
    start = time.perf_counter()
    llama.llama_backend_init()
    model = load(path)
    context = Context(model, flags, sequences=1, positions=FIRST_PROMPT, batch=FIRST_PROMPT)
    context.fill(prompt_rows(draw(FIRST_PROMPT), 0))
    context.run()
    seconds = time.perf_counter() - start
    context.close()
    return model, seconds


def engine(flags) -> None:
    generator = np.random.default_rng(0)
    before = memory("VmRSS")
    model, first_token_s = first_token(flags.model, flags, lambda n: generator.integers(0, 256, n))
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def draw(n: int):
        return generator.integers(0, vocab, n)

    points = bench_prefill(model, flags, draw) if flags.prefill else []
    points += bench_decode(model, flags, draw) if flags.decode else []
    result = {"first_token_s": first_token_s, "peak_bytes": memory("VmHWM") - before, "points": points,
              "system": llama.llama_print_system_info().decode()}
    flags.json.write_text(json.dumps(result), "utf-8")


def logits_of(flags) -> np.ndarray:
    """[T, V], with the KV cache in f32."""
    llama.llama_backend_init()
    model = load(flags.model)
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    context = Context(model, flags, sequences=1, positions=len(flags.tokens), batch=len(flags.tokens), kv=F32)
    context.fill([(token, i, 0, True) for i, token in enumerate(flags.tokens)])
    context.run()
    values = llama.llama_get_logits(context.pointer)
    return np.ctypeslib.as_array(values, (len(flags.tokens) * vocab,)).reshape(-1, vocab).astype(np.float64)


def agreement(a_TV: np.ndarray, b_TV: np.ndarray) -> dict:
    cosines_T = (a_TV * b_TV).sum(-1) / np.sqrt((a_TV**2).sum(-1) * (b_TV**2).sum(-1))
    difference = np.abs(a_TV - b_TV)
    return {"least_cosine": float(cosines_T.min()), "median_cosine": float(np.median(cosines_T)),
            "largest_difference": float(difference.max()), "largest_logit": float(np.abs(b_TV).max()),
            "same_largest": float((a_TV.argmax(-1) == b_TV.argmax(-1)).mean())}


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")] if text else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("engine", "logits"), help="what to do, as above")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="threads of llama.cpp (default: %(default)s)")
    parser.add_argument("--flash-attn", choices=("auto", "on", "off"), default="auto",
                        help="llama.cpp's flash attention (default: %(default)s)")
    parser.add_argument("--prefill", type=numbers, default=[128, 512, 2048],
                        help="tokens of a prompt (default: 128,512,2048)")
    parser.add_argument("--decode", type=numbers, default=[1, 4, 8, 16, 32],
                        help="streams that decode together (default: 1,4,8,16,32)")
    parser.add_argument("--prompt-len", type=int, default=128,
                        help="positions that a stream has before it decodes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="time for each point (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=64, help="most steps of a point (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="with engine: file to write")
    parser.add_argument("--tokens", type=numbers, help="with logits: token ids, as in 1,2,3")
    parser.add_argument("--against", type=Path, help="with logits: the file that `foe logits` wrote")
    flags = parser.parse_args()
    if flags.what == "engine":
        engine(flags)
    else:
        print(json.dumps(agreement(logits_of(flags), TensorFile(flags.against).read("logits").astype(np.float64))))


if __name__ == "__main__":
    main()
