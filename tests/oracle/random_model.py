#!/usr/bin/env python3
"""Writes a random model folder: config.json and model.safetensors, the tensors named as OLMoE's. Needs NumPy only.

    tests/oracle/random_model.py FOLDER --seed 1 --dtype bf16 --set expert_groups=4 residual=federated qk_norm=full

Scaled so that every part of the model matters to the logits: attention scores, expert outputs and the embedding are of
comparable size, norm weights differ from 1, and the norms' epsilon is not lost in rounding.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import safetensors_io
from foe_oracle import layers_of, norm_names

DEFAULTS = {
    "model_type": "foe",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "vocab_size": 128,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 32,
    "norm_topk_prob": False,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-3,
    "tie_word_embeddings": False,
    "max_position_embeddings": 512,
    "qk_norm": "none",
    "expert_groups": 1,
    "residual": "shared",
    "group_sync": "mean",
}

# Not written where they have their defaults.
OTHERS = {
    "num_shared_experts": 0,
    "shared_intermediate_size": 0,
    "shared_gate": False,
    "constant_experts": 0,
    "copy_experts": 0,
    "zero_experts": 0,
    "expert_storage": "own",
    "experts_of_layer": -1,
    "hidden_act": "silu",
    "swiglu_alpha": 1.0,
    "swiglu_limit": 0.0,
    "up_offset": 0.0,
    "mlp_bias": False,
    "v_head_dim": 0,
    "qkv_bias": False,
    "output_bias": False,
    "sliding_window": None,
    "sinks": False,
    "qk_norm_after_rope": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "rope_f32": False,
    "norm_offset": 0.0,
    "attention_scale": 0.0,
    "attn_logit_softcapping": 0.0,
    "embedding_factor": 1.0,
    "logit_factor": 1.0,
    "logit_softcap": 0.0,
}


def make_config(**overrides):
    unknown = set(overrides) - set(DEFAULTS) - set(OTHERS) - {"router", "layers", "group_sync_every"}
    if unknown:
        raise ValueError(f"unknown configuration keys {sorted(unknown)}")
    return DEFAULTS | overrides


def other(config, key):
    return config.get(key, OTHERS[key])


def scored_experts(config):
    return config["num_experts"] + sum(other(config, kind + "_experts") for kind in ("constant", "copy", "zero"))


def make_router(rng, config, common_D, skew, twins):
    """Returns the router, with a row for each scored expert.

    skew: the first k/H experts of each group also look for the direction that all embeddings share, so that they take
    nearly all tokens. twins: experts 2i and 2i + 1 always score alike, so that only the rule for ties tells them apart.
    """
    e, d = scored_experts(config), config["hidden_size"]
    gate_ED = rng.standard_normal((e, d)) * 2 / np.sqrt(d)
    if skew:
        groups = config["expert_groups"]
        favoured = np.arange(e) % (e // groups) < config["num_experts_per_tok"] // groups
        gate_ED[favoured] += 14 * common_D / d
    if twins:
        gate_ED[1::2] = gate_ED[0::2]
    return gate_ED


def make_tensors(config, seed, skew=False, twins=False):
    """Returns name -> float32 array."""
    rng = np.random.default_rng(seed)
    d, v = config["hidden_size"], config["vocab_size"]

    def matrix(rows, columns, gain=1.0):
        return rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)

    def norm(width):
        return 1 + 0.2 * rng.standard_normal(width)

    def network_biases(prefix, width):
        for name, size in ("gate", width), ("up", width), ("down", d):
            tensors[f"{prefix}{name}_proj.bias"] = 0.5 * rng.standard_normal(size)

    def feed_forward(prefix, gain, width):
        tensors[prefix + "gate_proj.weight"] = matrix(width, d, 1.5)
        tensors[prefix + "up_proj.weight"] = matrix(width, d, 1.5)
        tensors[prefix + "down_proj.weight"] = matrix(d, width, gain)

    def attention(prefix, a):
        c, w = a["head_dim"], other(a, "v_head_dim") or a["head_dim"]
        n, m = a["num_attention_heads"], a["num_key_value_heads"]
        tensors[prefix + "q_proj.weight"] = matrix(n * c, d, 1.5)
        tensors[prefix + "k_proj.weight"] = matrix(m * c, d, 1.5)
        tensors[prefix + "v_proj.weight"] = matrix(m * w, d, 1.5)
        tensors[prefix + "o_proj.weight"] = matrix(d, n * w, 1.5)
        if a["qk_norm"] != "none":
            full = a["qk_norm"] == "full"
            tensors[prefix + "q_norm.weight"] = norm(n * c if full else c)
            tensors[prefix + "k_norm.weight"] = norm(m * c if full else c)
        if other(a, "qkv_bias"):
            for name, width in ("q", n * c), ("k", m * c), ("v", m * w):
                tensors[f"{prefix}{name}_proj.bias"] = 0.5 * rng.standard_normal(width)
        if other(a, "output_bias"):
            tensors[prefix + "o_proj.bias"] = 0.5 * rng.standard_normal(d)
        if other(a, "sinks"):
            tensors[prefix + "sinks"] = 1 + rng.standard_normal(n)

    def experts(prefix, e):
        f = e["moe_intermediate_size"]
        bias = other(e, "mlp_bias")
        if e["num_experts"] == 0:
            feed_forward(prefix, 1.0, e.get("intermediate_size", f))
            return network_biases(prefix, e.get("intermediate_size", f)) if bias else None
        constant, shared = other(e, "constant_experts"), other(e, "num_shared_experts")
        tensors[prefix + "gate.weight"] = make_router(rng, e, common_D, skew, twins)
        # The chosen experts' weights sum to less than 1 and their outputs do not add up in phase.
        gain = 1.5 * np.sqrt(e["num_experts_per_tok"])
        if other(e, "expert_storage") == "slices":
            feed_forward(prefix, gain, e["num_experts"] * f)
        elif other(e, "experts_of_layer") < 0:
            for i in range(e["num_experts"]):
                feed_forward(f"{prefix}experts.{i}.", gain, f)
                if bias:
                    network_biases(f"{prefix}experts.{i}.", f)
        if e.get("router", {}).get("bias"):
            tensors[prefix + "gate.bias"] = rng.standard_normal(scored_experts(e))
        if e.get("router", {}).get("selection_bias"):
            tensors[prefix + "gate.e_score_correction_bias"] = 0.3 * rng.standard_normal(scored_experts(e))
        if constant:
            tensors[prefix + "constant_experts.gates"] = matrix(2 * constant, d)
            tensors[prefix + "constant_experts.vectors"] = rng.standard_normal((constant, d))
        if shared:
            feed_forward(prefix + "shared_experts.", 1.0, shared * (other(e, "shared_intermediate_size") or f))
        if other(e, "shared_gate"):
            tensors[prefix + "shared_expert_gate.weight"] = matrix(1, d)

    common_D = rng.choice([-1.0, 1.0], d)
    tensors = {"model.embed_tokens.weight": rng.standard_normal((v, d)) + (1.5 * common_D if skew else 0)}
    for layer, (a, e) in enumerate(layers_of(config)):
        prefix = f"model.layers.{layer}."
        before_attention, after_attention, before_experts, after_experts = norm_names(a, e)
        for name in before_attention, after_attention:
            if name:
                tensors[f"{prefix}{name}.weight"] = norm(d)
        attention(prefix + "self_attn.", a)
        for name in before_experts, after_experts:
            if name and name != before_attention:
                tensors[f"{prefix}{name}.weight"] = norm(d)
        experts(prefix + "mlp.", e)
    tensors["model.norm.weight"] = norm(d)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(v, d, 2.0)
    return {name: array.astype(np.float32) for name, array in tensors.items()}


def write_random_model(folder, config, seed, dtype="f32", skew=False, twins=False):
    """Writes the folder; dtype "bf16" rounds the tensors to that type, so whoever reads the file sees rounded ones."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = make_tensors(config, seed, skew, twins)
    safetensors_io.write(folder / "model.safetensors", tensors, bf16=dtype == "bf16", metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description="Write a random model folder.")
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--skew", action="store_true", help="a few experts take nearly all tokens")
    parser.add_argument("--twins", action="store_true", help="experts 2i and 2i + 1 score alike")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="config.json keys; values are JSON")
    args = parser.parse_args()
    overrides = {}
    for item in args.set:
        key, _, value = item.partition("=")
        try:
            overrides[key] = json.loads(value)
        except json.JSONDecodeError:
            overrides[key] = value
    write_random_model(args.folder, make_config(**overrides), args.seed, args.dtype, args.skew, args.twins)


if __name__ == "__main__":
    main()
