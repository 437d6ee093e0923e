#!/usr/bin/env python3
"""Makes a small random OLMoE (or its relatives Qwen3-MoE and Mixtral) and the logits that `transformers` gives for it.

    tools/make_olmoe_golden.py olmoe        # or qwen3moe, mixtral; writes tests/golden/<family>_tiny/

The folder is what `save_pretrained` writes, so that it also pins how models of that version look; beside it,
expected.safetensors holds `tokens` (I64 [T]) and `logits` (F32 [T, V]), computed by the model in float64 on the CPU
(transformers keeps a few steps in float32 even then: norms, rotary angles, the router's softmax).
Needs torch and transformers.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

SHAPE = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=128,
             max_position_embeddings=128, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=None)

MAKERS = {
    "olmoe": lambda: transformers.OlmoeForCausalLM(transformers.OlmoeConfig(
        **SHAPE, intermediate_size=24, num_experts=8, num_experts_per_tok=2, norm_topk_prob=False)),
    # Heads wider than D / N, and experts of another width than intermediate_size, which no layer uses here.
    "qwen3moe": lambda: transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
        **SHAPE, intermediate_size=64, moe_intermediate_size=24, head_dim=16, num_experts=8, num_experts_per_tok=2,
        norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])),
    "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(
        **SHAPE, intermediate_size=32, num_local_experts=6, num_experts_per_tok=2, sliding_window=None)),
}

TOKENS = 60
# Two router logits may differ from ours by the test's tolerance, 2e-5 of the largest, each.
SMALLEST_MARGIN = 1e-4


def randomise(model, generator):
    """Draws every parameter anew, so that every part matters to the logits: the stock initialisation is near zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * draw)
            elif "embed_tokens" in name:
                parameter.copy_(draw)
            else:
                # Expert outputs come weighted by probabilities: larger down projections make up for it.
                gain = 3.0 if name.endswith(("down_proj", "down_proj.weight")) else 1.5
                parameter.copy_(draw * gain / parameter.shape[-1] ** 0.5)


def router_margin(router_logits, k):
    """Smallest gap between the last expert taken and the first one left, relative to the layer's largest logit."""
    margins = []
    for scores_TE in router_logits:
        ranked = scores_TE.sort(dim=-1, descending=True).values
        margins.append(((ranked[:, k - 1] - ranked[:, k]).min() / scores_TE.abs().max()).item())
    return min(margins)


def make(family, seed):
    generator = torch.Generator().manual_seed(seed)
    model = MAKERS[family]().eval()
    model.set_experts_implementation("eager")  # the grouped product has no float64
    randomise(model, generator)
    tokens = torch.randint(SHAPE["vocab_size"], (TOKENS,), generator=generator)
    with torch.no_grad():
        out = model.double()(tokens[None], output_router_logits=True)
    margin = router_margin(out.router_logits, model.config.num_experts_per_tok)
    return model.float(), tokens, out.logits[0].float(), margin


def main():
    parser = argparse.ArgumentParser(description="Make a golden model folder with transformers.")
    parser.add_argument("family", choices=MAKERS, help="the kind of model")
    parser.add_argument("--output", help="folder to write (default: tests/golden/<family>_tiny)")
    args = parser.parse_args()
    folder = Path(args.output or Path(__file__).parent.parent / "tests" / "golden" / f"{args.family}_tiny")

    seed = 0
    model, tokens, logits, margin = make(args.family, seed)
    while margin < SMALLEST_MARGIN:
        seed += 1
        model, tokens, logits, margin = make(args.family, seed)
    model.save_pretrained(folder)
    metadata = {"transformers": transformers.__version__, "torch": torch.__version__, "seed": str(seed)}
    save_file({"tokens": tokens, "logits": logits.contiguous()}, folder / "expected.safetensors", metadata)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes files that only their owner can read
    print(json.dumps({"folder": str(folder), **metadata, "router_margin": margin,
                      "parameters": sum(p.numel() for p in model.parameters())}))


if __name__ == "__main__":
    main()
