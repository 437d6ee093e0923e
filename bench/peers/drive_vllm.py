"""Drives vLLM through its class LLM, as its documentation does for offline inference, and times the steps of its engine.

    drive_vllm.py FOLDER --json OUT

The folder is as transformers has it. A prompt's time is that of a request for one token; a step of decoding is the time from one
token of all streams to the next, greedy sampling included, since vLLM gives no logits. The prefix cache is off. One process, whose
environment variables peers.py sets; the time to a first token counts from the start of Python, which is part of vLLM.
"""

import os
import time

STARTED = time.perf_counter()
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine in this process, so that step() is one step

import json  # noqa: E402

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
        return self.params(temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False)

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
    points.write(flags.json, {"first_token_s": first_token_s, "peak_bytes": points.process_memory("VmHWM"), "points": measured,
                              "system": f"{flags.dtype}, VLLM_CPU_KVCACHE_SPACE={os.environ.get('VLLM_CPU_KVCACHE_SPACE')} GB"})


if __name__ == "__main__":
    main()
