"""Drives vLLM through its class LLM, as its documentation does for offline inference, and times the steps of its engine.

    drive_vllm.py FOLDER --json OUT

The folder is as transformers has it. A prompt's time is that of a request for one token; a step of decoding is the time from one
token of all streams to the next, greedy sampling included, since vLLM gives no logits. The prefix cache is off; compiling, and the
processes of engine and worker, are as vLLM has them, and peers.py sets the environment variables that it asks for on CPUs. The time to
a first token counts from the start of Python, which is part of vLLM, and memory is that of all its processes.
"""

import json
import os
import time
from pathlib import Path

STARTED = time.perf_counter()

import points  # noqa: E402


class Engine:
    def __init__(self, flags):
        from vllm import LLM, SamplingParams

        self.params = SamplingParams
        config = json.loads((flags.model / "config.json").read_text("utf-8"))
        self.vocabulary = config["vocab_size"]
        most = max(points.positions_of(point, flags.repetitions + 2) for point in points.all_points(flags.prefill, flags.decode)) + 1
        streams = max([1, *(n for load in flags.decode for n in load.streams)])
        self.llm = LLM(model=str(flags.model), dtype=flags.dtype, skip_tokenizer_init=True, enable_prefix_caching=False,
                       max_model_len=min(most, config["max_position_embeddings"]), max_num_seqs=streams,
                       max_num_batched_tokens=max(2048, most), disable_log_stats=True)
        self.requests = 0

    def sampling(self, tokens: int):
        return self.params(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)

    def run_prompt(self, prompt: list[int]) -> None:
        self.llm.generate([{"prompt_token_ids": prompt}], self.sampling(1), use_tqdm=False)

    def decode_steps(self, prompts: list[list[int]], tokens: int, seconds: float) -> list[float]:
        """Returns the times between tokens that all streams have, until they have taken so long; the first does not count."""
        engine, count = self.llm.llm_engine, {}
        for prompt in prompts:
            self.requests += 1
            engine.add_request(f"stream-{self.requests}", {"prompt_token_ids": prompt}, self.sampling(tokens + 2))
        least, moment, times = 0, None, []
        while engine.has_unfinished_requests() and sum(times[1:]) <= seconds and len(times) <= tokens:
            for output in engine.step():
                count[output.request_id] = len(output.outputs[0].token_ids)
            now = min(count.values()) if len(count) == len(prompts) else 0
            if now > least:
                if moment is not None:
                    times.append((time.perf_counter() - moment) / (now - least))
                least, moment = now, time.perf_counter()
        engine.abort_request(list(count))
        while engine.has_unfinished_requests():
            engine.step()
        return times[1:]


def parent(process: Path) -> int:
    return int((process / "stat").read_text("utf-8").rpartition(")")[2].split()[1])


def memory_of_all() -> int:
    """Returns the most memory that this process and those that it started have had, each at its own time."""
    parents = {int(process.name): parent(process) for process in Path("/proc").glob("[0-9]*")}
    family = {os.getpid()}
    while more := {child for child, of in parents.items() if of in family} - family:
        family |= more
    return sum(points.process_memory("VmHWM", process) for process in family)


def main() -> None:
    flags = points.parse(__doc__, lambda parser: parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="format of weights and activations (default: %(default)s)"))
    engine = Engine(flags)
    tokens = points.RandomTokens(engine.vocabulary)
    engine.run_prompt(tokens.draw(points.FIRST_PROMPT))
    first_token_s = time.perf_counter() - STARTED
    measured = []
    for count in flags.prefill:
        seconds = points.repeat(flags, lambda _: points.timed(lambda: engine.run_prompt(tokens.draw(count))))
        measured.append(points.prefill_point(count) | {"seconds": seconds})
    for load in flags.decode:
        for count in load.streams:
            prompts = [tokens.draw(load.positions) for _ in range(count)]
            seconds = engine.decode_steps(prompts, flags.repetitions, flags.seconds)
            measured.append(points.decode_point(count, load.positions) | {"seconds": seconds})
    points.write(flags.json, {"first_token_s": first_token_s, "peak_bytes": memory_of_all(), "points": measured,
                              "system": f"{flags.dtype}, VLLM_CPU_KVCACHE_SPACE={os.environ.get('VLLM_CPU_KVCACHE_SPACE')} GB"})


if __name__ == "__main__":
    main()
