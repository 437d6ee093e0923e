"""Are foe's greedy answers those of transformers, on the weights of one GGUF file?

    greedy_answers.py MODEL.gguf --foe build/foe [--tokens 200] [--json FILE]

Needs torch, transformers and gguf: the Python of vLLM's environment has them, and accelerate (bench/peers/peers.py vLLM). transformers loads the file by
itself, decoding its blocks with the package gguf, and computes in float32; foe serves the file with --dtype f32 --kv-dtype f32. Both
answer ten prompts, written as a chat by the file's template, with --tokens tokens each, going on past the end of the text. A line a
prompt says whether the prompts' ids and the answers are equal, or else where the first difference is and how near to a tie the two
candidates are there. The logits of the whole answer are compared with those of transformers in float64, too.

The tolerance. Write u = 2^-24 for the rounding of float32. A sum of n products of random signs, rounded after every addition, has a
relative error of about u sqrt(n / 6): the roundings are uniform, each is as large as the partial sum that it rounds, and these grow
with the square root of their length. `tolerance()` allows u sqrt(n) for each sum between a token and its logits, 2.4 standard
deviations, and adds them as independent errors: t = u sqrt(sum of all n), of the largest logit Z. That takes a norm, a softmax and a
layer to pass on relative errors as they are, which is an assumption, so the largest error that each side has is printed beside t.
If both sides are within t Z of the exact logits z, and foe chooses a where transformers chooses b, then z_b - t Z <= z_a + t Z and
the same the other way round: |z_a - z_b| <= 2 t Z. That is what a first difference is held to. Behind it the texts are different
texts. With experts the tolerance says nothing of a router's ties.

--at-once is quicker: transformers does not write answers, but computes the logits of the whole of foe's, where it must choose each token.
Up to the first difference that is the same text, so the same holds; only transformers' roundings are others.

Exit status: 0 if all answers are equal or first differ within the tolerance.
"""

import argparse
import copy
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # with more, torch may wait for ever beside other processes

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from tensor_files import TensorFile  # noqa: E402

PROMPTS = (
    "What is the capital of France?",
    "Write a short poem about the sea in winter.",
    "Explain in simple words why the sky is blue.",
    "List ten animals that live in forests.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Translate into French: The weather is nice today, and we are going to the beach.",
    "If a train travels 120 km in an hour and a half, what is its average speed?",
    "Summarise the story of Romeo and Juliet in three sentences.",
    "Was ist der Unterschied zwischen einer Katze und einem Hund?",
    "Give me a recipe for pancakes, with quantities.",
)
F32_UNIT = 2.0**-24


def tolerance(config, positions: int) -> float:
    """Returns t, by the lengths of the sums between a token and its logits."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    wide = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    norms, products = 2 * hidden, 5 * hidden + heads * width + wide  # q, k, v, gate, up; output; down
    attention = width + positions  # a score; the sum over values
    return F32_UNIT * math.sqrt(config.num_hidden_layers * (norms + products + attention) + 2 * hidden)


class FoeServer:
    """`foe serve MODEL` in f32, until the end of a `with` block."""

    def __init__(self, flags):
        self.command = [flags.foe, "serve", flags.model, "--dtype", "f32", "--kv-dtype", "f32", "--port", "0", "--threads", str(flags.threads)]

    def __enter__(self):
        self.log = tempfile.NamedTemporaryFile("r+", encoding="utf-8")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        while True:
            text = Path(self.log.name).read_text("utf-8")
            if found := re.search(r"listening on (http://[0-9.:]+)", text):
                self.url = found[1]
                return self
            if self.process.poll() is not None:
                sys.exit(f"greedy_answers: expected foe serve to start, it ended with {self.process.returncode}:\n{text}")
            time.sleep(0.2)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def answer(self, prompt: str, tokens: int) -> tuple[list[int], list[int]]:
        """Returns the ids of the prompt and of the answer."""
        body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": tokens, "ignore_eos": True,
                "return_token_ids": True}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            choice = json.load(reply)["choices"][0]
        return choice["prompt_token_ids"], choice["token_ids"]


def foe_answers(flags, prompts) -> list[tuple[list[int], list[int]]]:
    """Returns the ids of each prompt and answer. They run together, which changes no answer."""
    print(f"foe answers {len(prompts)} prompts", file=sys.stderr, flush=True)
    with FoeServer(flags) as server, ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda prompt: server.answer(prompt, flags.tokens), prompts))


@torch.no_grad()
def greedy(model, prompt: list[int], tokens: int) -> tuple[list[int], np.ndarray]:
    """Returns the ids that transformers chooses, and the logits that it chose each from, [tokens, V]."""
    ids, cache, rows = torch.tensor([prompt]), None, []
    while len(rows) < tokens:
        out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        rows.append(out.logits[0, -1])
        ids = rows[-1].argmax().reshape(1, 1)
    logits = torch.stack(rows).float().numpy()
    return logits.argmax(-1).tolist(), logits


@torch.no_grad()
def whole_logits(model, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids]), use_cache=False).logits[0].double().numpy()


def foe_logits(flags, ids: list[int]) -> np.ndarray:
    """[T, V]. foe's logits do not depend on what is computed together: these are what its answers were chosen from."""
    with tempfile.TemporaryDirectory() as folder:
        tokens, out = Path(folder) / "tokens.txt", Path(folder) / "logits.safetensors"
        tokens.write_text(",".join(map(str, ids)) + "\n", "utf-8")
        subprocess.run([flags.foe, "logits", flags.model, "--dtype", "f32", "--tokens", f"@{tokens}", "--output", out, "--threads",
                        str(flags.threads)], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        return TensorFile(out).read("logits").astype(np.float64)


def compare(flags, prompt: list[int], ours: list[int], model, exact, t: float) -> dict:
    if flags.at_once:
        text = prompt + ours[:-1]
        their_TV = whole_logits(model, text)[len(prompt) - 1 :]
        theirs = their_TV.argmax(-1).tolist()
    else:
        theirs, their_TV = greedy(model, prompt, flags.tokens)
        text = prompt + theirs[:-1]
    exact_TV, our_TV = whole_logits(exact, text)[len(prompt) - 1 :], foe_logits(flags, text)[len(prompt) - 1 :]
    largest = np.abs(exact_TV).max(-1)
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), len(theirs))
    result = {"equal": at, "tolerance": t, "foe_error": float((np.abs(our_TV - exact_TV).max(-1) / largest).max()),
              "transformers_error": float((np.abs(their_TV - exact_TV).max(-1) / largest).max())}
    if at < len(theirs):
        a, b = ours[at], theirs[at]
        result["difference"] = {"foe": a, "transformers": b, "gap": float(abs(exact_TV[at, a] - exact_TV[at, b])),
                                "allowed": float(2 * t * largest[at])}
    return result | {"within": at == len(theirs) or result["difference"]["gap"] <= result["difference"]["allowed"]}


def line(number: int, result: dict, tokens: int) -> str:
    text = f"{number:>2}  prompt of {result['prompt_tokens']} ids {'equal' if result['same_prompt'] else 'DIFFERENT'}, "
    if result["equal"] == tokens:
        text += f"all {tokens} tokens equal"
    else:
        d = result["difference"]
        text += (f"{result['equal']} tokens equal, then {d['foe']} and {d['transformers']}, whose exact logits differ by {d['gap']:.2g}"
                 f" ({'within' if result['within'] else 'BEYOND'} {d['allowed']:.2g})")
    return (f"{text}; largest error of logits: foe {result['foe_error']:.1e}, transformers {result['transformers_error']:.1e},"
            f" tolerance {result['tolerance']:.1e}")  # fmt: skip


def parse_flags():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="GGUF file of a model with a chat template")
    parser.add_argument("--foe", type=Path, default=Path("build/foe"), help="the program (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=200, help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the prompts (default: all)")
    parser.add_argument("--at-once", action="store_true", help="let transformers judge foe's answers instead of writing its own")
    parser.add_argument("--threads", type=int, default=1, help="threads of foe (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def main() -> None:
    flags = parse_flags()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = AutoTokenizer.from_pretrained(flags.model.parent, gguf_file=flags.model.name)
    model = AutoModelForCausalLM.from_pretrained(flags.model.parent, gguf_file=flags.model.name, dtype=torch.float32).eval()
    exact = copy.deepcopy(model).double()
    results, prompts = [], PROMPTS[: flags.prompts]
    for number, (text, (prompt, ours)) in enumerate(zip(prompts, foe_answers(flags, prompts)), 1):
        expected = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False)
        result = compare(flags, prompt, ours, model, exact, tolerance(model.config, len(prompt) + flags.tokens))
        result |= {"prompt": text, "prompt_tokens": len(prompt), "same_prompt": prompt == expected, "answer": tokenizer.decode(ours)}
        results.append(result)
        print(line(number, result, flags.tokens), flush=True)
        if flags.json:
            flags.json.write_text(json.dumps(results, indent=1), "utf-8")
    equal = sum(result["equal"] == flags.tokens for result in results)
    good = all(result["within"] and result["same_prompt"] for result in results)
    rest = "" if equal == len(results) else "; others first differ within the tolerance"
    rest = rest if good else "; an answer differs beyond the tolerance, or the ids of a prompt do"
    print(f"{equal} of {len(results)} answers equal{rest}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
