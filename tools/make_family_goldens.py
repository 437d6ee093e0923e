#!/usr/bin/env python3
"""Makes small random models of every family with `transformers`, and the logits that it gives for them.

    tools/make_family_goldens.py                 # writes all of tests/golden/families/
    tools/make_family_goldens.py gemma3 phi3     # those whose names begin so
    tools/make_family_goldens.py llama --seed 7 --output /tmp/models   # others, to try

tools/family_models/*.py have the families: a dictionary MODELS from a name to a function that returns a configuration
of transformers. It may have golden_long (4,000 tokens, too), golden_prepare(model), which changes the random weights,
and golden_save(model, folder), which writes them in place of `save_pretrained`. A folder is what `save_pretrained`
writes; beside it, expected.safetensors holds `tokens` (I32 [T]), `positions` (I32 [P]), `logits` (F32 [P, V]) at
these, and in models whose windows or rotary scaling shows only in long texts the same as `long_tokens`,
`long_positions`, `long_logits`. The model computes them in float64 on the CPU (transformers keeps some steps in
float32 even then: norms, rotary angles, the router's softmax).
Needs torch and transformers.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

TOKENS, LONG = 96, 4000
POSITIONS = 16  # whose logits are kept, of each text
# Two values of a router may each differ from ours by what f32 costs, some 1e-6 of the largest. A larger margin would be
# hard to find in long texts. Where the test passes once it does so on all machines, as foe gives the same bits on all.
SMALLEST_MARGIN = 2e-5
GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "families"


def load_models():
    models = {}
    for path in sorted((Path(__file__).parent / "family_models").glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if twice := models.keys() & module.MODELS.keys():
            raise SystemExit(f"{path}: {', '.join(twice)} is in another file, too")
        models |= module.MODELS
    return models


def randomise(model, generator):
    """Draws every parameter anew, so that every part matters to the logits: the stock initialisation is near zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if name.endswith("e_score_correction_bias"):
                parameter.copy_(0.1 * draw)
            elif parameter.dim() == 1:
                # Weights of norms are around 1, also where what is stored is added to 1; biases are around 0.
                around = 1 if "norm" in name and not adds_one(model) else 0
                parameter.copy_(around + 0.2 * draw)
            elif "embed_tokens" in name:
                parameter.copy_(draw * getattr(model, "golden_embedding_gain", 1.0))
            else:
                # Expert outputs come weighted by probabilities: larger down projections make up for it.
                gain = 3.0 if name.endswith(("down_proj", "down_proj.weight", "w2.weight")) else 1.5
                parameter.copy_(draw * gain / parameter.shape[-1] ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))


def adds_one(model):
    """Whether the norms multiply by 1 + weight."""
    return model.config.model_type.startswith(("gemma2", "gemma3"))


@contextlib.contextmanager
def recorded_margins():
    """Yields a list that gets, of every choice of the best, the smallest gap between the last one taken and the first one
    left, relative to the largest value: of routers' scores, with their biases, and of groups."""
    margins, topk, method = [], torch.topk, torch.Tensor.topk

    def record(values, k, dim=-1, **more):
        ranked = values.sort(dim=dim, descending=True).values
        if k < ranked.shape[dim]:
            gaps = ranked.select(dim, k - 1) - ranked.select(dim, k)
            finite = values[torch.isfinite(values)].abs().max()
            margins.append((gaps[torch.isfinite(gaps)].min() / finite).item())
        return topk(values, k, dim=dim, **more)

    torch.topk = torch.Tensor.topk = record
    try:
        yield margins
    finally:
        torch.topk, torch.Tensor.topk = topk, method


def expected(model, length, generator, prefix):
    config = model.config.get_text_config()
    tokens = torch.randint(config.vocab_size, (length,), generator=generator)
    with torch.no_grad(), recorded_margins() as margins:
        out = model(tokens[None])
    positions = torch.linspace(0, length - 1, POSITIONS).round().int()
    logits = out.logits[0, positions.long()].float().contiguous()
    tensors = {f"{prefix}tokens": tokens.int(), f"{prefix}positions": positions, f"{prefix}logits": logits}
    return tensors, min(margins, default=1.0)


def make(config, seed):
    generator = torch.Generator().manual_seed(seed)
    long = config.__dict__.pop("golden_long", False)
    prepare, save = config.__dict__.pop("golden_prepare", None), config.__dict__.pop("golden_save", None)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the grouped product has no float64
    randomise(model, generator)
    if prepare:
        prepare(model)
    model.golden_save = save
    model.double()
    tensors, margin = expected(model, TOKENS, generator, "")
    if long:
        more, long_margin = expected(model, LONG, generator, "long_")
        tensors, margin = tensors | more, min(margin, long_margin)
    return model.float(), tensors, margin


def write(name, new_config, folder, seed):
    model, tensors, margin = make(new_config(), seed)
    while margin < SMALLEST_MARGIN:
        seed += 1
        model, tensors, margin = make(new_config(), seed)
    (model.golden_save or type(model).save_pretrained)(model, folder)
    metadata = {"transformers": transformers.__version__, "torch": torch.__version__, "seed": str(seed)}
    save_file(tensors, folder / "expected.safetensors", metadata)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes files that only their owner can read
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(json.dumps({"model": name, "seed": seed, "router_margin": margin, "bytes": size,
                      "largest": tensors["logits"].abs().max().item()}), flush=True)


def main():
    models = load_models()
    parser = argparse.ArgumentParser(description="Make golden model folders with transformers.")
    parser.add_argument("names", nargs="*", help="beginnings of the models' names (default: all)")
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder of the folders")
    parser.add_argument("--seed", type=int, default=0, help="of weights and tokens")
    args = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for name, new_config in models.items():
        if not args.names or name.startswith(tuple(args.names)):
            write(name, new_config, args.output / name, args.seed)


if __name__ == "__main__":
    main()
