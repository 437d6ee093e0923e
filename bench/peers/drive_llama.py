"""Drives llama.cpp or its fork ik_llama.cpp, whichever this Python has, through the low-level interface of its package.

    drive_llama.py engine MODEL.gguf --json OUT   measures the points of points.py
    drive_llama.py logits MODEL.gguf --tokens 1,2,3 --against F.safetensors
                                                  compares logits with those of `foe logits`, and prints the agreement as JSON

A step's time is that of llama_decode and of waiting for the logits of each sequence's last token; batches are filled before it.
Neither the start of Python nor its memory count. Files are mapped, the KV cache has 16 bits an element (with logits 32, in
llama.cpp), and the engine chooses how it computes attention. On a processor with AMX llama.cpp repacks no weights (`use_extra_bufts`), as the code
for that ends in an illegal instruction there; the JSON's "system" says so.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import llama_library as library
import points
from tensor_files import TensorFile

DISTINCT_PROMPTS = 8  # of streams: the others get copies, in cells of their own
CELLS = 256  # a sequence's cells are a multiple

llama = library.llama


class Context:
    """A context with one batch of at most `batch` tokens."""

    def __init__(self, model, flags, *, sequences: int, positions: int, batch: int, kv=library.F16):
        params = llama.llama_context_default_params()
        each = -(-positions // CELLS) * CELLS
        params.n_ctx, params.n_seq_max, params.n_batch, params.n_ubatch = sequences * each, sequences, batch, min(batch, 512)
        params.n_threads = params.n_threads_batch = flags.threads
        params.type_k = params.type_v = kv
        library.set_flash_attention(params, flags.flash_attn)
        self.pointer = llama.llama_init_from_model(model, params)
        if not self.pointer:
            raise SystemExit("drive_llama: expected the library to make a context, got none; is there enough memory?")
        self.cells = library.Cells(self.pointer)
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
        library.synchronize(self.pointer)
        seconds = time.perf_counter() - start
        if status != 0:
            raise SystemExit(f"drive_llama: expected llama_decode to return 0, got {status}")
        return seconds

    def close(self) -> None:
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.pointer)


def load(path: str):
    params = llama.llama_model_default_params()
    library.choose_buffers(params)
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise SystemExit(f"drive_llama: expected a GGUF file that this library loads, got {path}")
    return model


def vocabulary(model) -> int:
    return llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))


def prompt_rows(tokens, sequence: int) -> list[tuple[int, int, int, bool]]:
    return [(token, i, sequence, i == len(tokens) - 1) for i, token in enumerate(tokens)]


def measure_prefill(model, flags, tokens: points.RandomTokens) -> list[dict]:
    longest = max(flags.prefill)
    context = Context(model, flags, sequences=1, positions=longest, batch=longest)

    def run(count: int) -> float:
        context.cells.clear()
        context.fill(prompt_rows(tokens.draw(count), 0))
        return context.run()

    result = [points.prefill_point(count) | {"seconds": points.repeat(flags, lambda _: run(count))} for count in flags.prefill]
    context.close()
    return result


def measure_decode(model, flags, tokens: points.RandomTokens, load: points.Decode) -> list[dict]:
    streams, positions = max(load.streams), load.positions
    context = Context(model, flags, sequences=streams, positions=positions + 1 + flags.repetitions, batch=max(streams, positions))
    for s in range(streams):
        if s < DISTINCT_PROMPTS:
            context.fill(prompt_rows(tokens.draw(positions), s))
            context.run()
        else:
            context.cells.copy(s % DISTINCT_PROMPTS, s)

    def run(count: int, step: int) -> float:
        context.fill([(token, positions + step, s, True) for s, token in enumerate(tokens.draw(count))])
        return context.run()

    result = []
    for count in load.streams:
        for s in range(streams):
            context.cells.remove(s, positions)
        run(count, 0)  # does not count
        seconds = points.repeat(flags, lambda i: run(count, i + 1))
        result.append(points.decode_point(count, positions) | {"seconds": seconds})
    context.close()
    return result


def first_token(flags):
    """Returns the model, and seconds until it has made the logits of a first token."""
    start = time.perf_counter()
    llama.llama_backend_init()
    model = load(flags.model)
    context = Context(model, flags, sequences=1, positions=points.FIRST_PROMPT, batch=points.FIRST_PROMPT)
    context.fill(prompt_rows(points.RandomTokens(256).draw(points.FIRST_PROMPT), 0))
    context.run()
    seconds = time.perf_counter() - start
    context.close()
    return model, seconds


def engine(flags) -> None:
    before = points.process_memory("VmRSS")
    model, first_token_s = first_token(flags)
    tokens = points.RandomTokens(vocabulary(model))
    measured = measure_prefill(model, flags, tokens) if flags.prefill else []
    for load in flags.decode:
        measured += measure_decode(model, flags, tokens, load) if load.streams else []
    points.write(flags.json, {"first_token_s": first_token_s, "peak_bytes": points.process_memory("VmHWM") - before,
                              "points": measured, "system": library.system(flags.flash_attn)})


def logits_of(model_path, tokens: list[int], threads: int, flash_attn: str = "auto") -> np.ndarray:
    """[T, V], with the most exact KV cache that the library has."""
    llama.llama_backend_init()
    model = load(model_path)
    values = argparse.Namespace(threads=threads, flash_attn=flash_attn)
    context = Context(model, values, sequences=1, positions=len(tokens), batch=len(tokens), kv=library.MOST_EXACT_KV)
    context.fill([(token, i, 0, True) for i, token in enumerate(tokens)])
    context.run()
    rows = [np.ctypeslib.as_array(llama.llama_get_logits_ith(context.pointer, i), (vocabulary(model),)) for i in range(len(tokens))]
    return np.stack(rows).astype(np.float64)


def agreement(a_TV: np.ndarray, b_TV: np.ndarray) -> dict:
    cosines_T = (a_TV * b_TV).sum(-1) / np.sqrt((a_TV**2).sum(-1) * (b_TV**2).sum(-1))
    difference = np.abs(a_TV - b_TV)
    return {"least_cosine": float(cosines_T.min()), "median_cosine": float(np.median(cosines_T)),
            "largest_difference": float(difference.max()), "largest_logit": float(np.abs(b_TV).max()),
            "same_largest": float((a_TV.argmax(-1) == b_TV.argmax(-1)).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    measuring, comparing = kinds.add_parser("engine"), kinds.add_parser("logits")
    measuring.add_argument("--json", type=Path, required=True, help="file to write")
    points.add_measuring_flags(measuring)
    comparing.add_argument("--tokens", type=points.numbers, required=True, help="token ids, as in 1,2,3")
    comparing.add_argument("--against", type=Path, required=True, help="the file that `foe logits` wrote")
    comparing.add_argument("--threads", type=int, default=2, help="threads of the engine (default: %(default)s)")
    for kind in measuring, comparing:
        kind.add_argument("model", type=Path, help="GGUF file")
        kind.add_argument("--flash-attn", choices=("auto", "on", "off"), default="auto",
                          help="flash attention; auto: as the library's authors have it (default: %(default)s)")
    flags = parser.parse_args()
    if flags.what == "engine":
        engine(flags)
    else:
        theirs = logits_of(flags.model, flags.tokens, flags.threads, flags.flash_attn)
        print(json.dumps(agreement(theirs, TensorFile(flags.against).read("logits").astype(np.float64))))


if __name__ == "__main__":
    main()
