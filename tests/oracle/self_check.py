#!/usr/bin/env python3
"""Checks the oracle itself. Needs torch and transformers, so it is run by hand, not in CI:

    tests/oracle/self_check.py

Three anchors: Hugging Face `transformers` for ordinary MoE and dense models; the paper's own form of the equations, one
hidden state per group, for federated ones; and the table of logits_test.py, where each feature must show in the logits.
"""

import json
import tempfile
import unittest

import numpy as np
import torch
import transformers

import foe_oracle
import logits_test
import random_model
import safetensors_io

TOKENS = np.random.default_rng(7).integers(0, 96, 50)
# Large, so that a misplaced epsilon shows.
SHAPE = dict(hidden_size=40, num_hidden_layers=3, num_attention_heads=6, vocab_size=96, max_position_embeddings=64,
             rms_norm_eps=1e-2)
LINEAR = {"rope_type": "linear", "factor": 16.0, "rope_theta": 500.0}
DEFAULT = {"rope_type": "default", "rope_theta": 500.0}

# (name, class of the model, its configuration, what ours calls differently)
MODELS = [
    ("olmoe", "Olmoe", dict(num_key_value_heads=6, hidden_size=60, intermediate_size=24, num_experts=12,
                            num_experts_per_tok=3, norm_topk_prob=False, rope_parameters=DEFAULT),
     dict(qk_norm="full", head_dim=10, moe_intermediate_size=24)),
    ("olmoe, grouped queries, linear scaling, tied", "Olmoe",
     dict(num_key_value_heads=2, hidden_size=60, intermediate_size=24, num_experts=12, num_experts_per_tok=3,
          norm_topk_prob=True, rope_parameters=LINEAR, tie_word_embeddings=True),
     dict(qk_norm="full", head_dim=10, moe_intermediate_size=24)),
    ("qwen3 moe", "Qwen3Moe", dict(num_key_value_heads=2, head_dim=14, moe_intermediate_size=24, num_experts=8,
                                   num_experts_per_tok=4, norm_topk_prob=True, rope_parameters=DEFAULT),
     dict(qk_norm="head", num_experts=8)),
    ("qwen3 moe, not renormalised", "Qwen3Moe",
     dict(num_key_value_heads=3, head_dim=14, moe_intermediate_size=24, num_experts=8, num_experts_per_tok=2,
          norm_topk_prob=False, rope_parameters=LINEAR), dict(qk_norm="head", num_experts=8)),
    ("llama", "Llama", dict(num_key_value_heads=2, hidden_size=60, head_dim=10, intermediate_size=56,
                            rope_parameters=LINEAR),
     dict(num_experts=0, moe_intermediate_size=56)),
]


def hugging_face(kind, settings):
    """Returns (model in float64, its tensors as float64) with random weights of a size that matters."""
    config = getattr(transformers, kind + "Config")(**(SHAPE | settings))
    model = getattr(transformers, kind + "ForCausalLM")(config).eval()
    if kind != "Llama":
        model.set_experts_implementation("eager")  # the grouped product has no float64
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            scale = 1 if "embed_tokens" in name else 2 / parameter.shape[-1] ** 0.5
            parameter.copy_(1 + 0.2 * draw if parameter.dim() == 1 else scale * draw)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = safetensors_io.read(folder + "/model.safetensors")
    return model.double(), {name: array.astype(np.float64) for name, array in tensors.items()}


def forward_by_streams(config, weights, tokens):
    """The paper's form of a federated model, group_sync = "mean": one hidden state per group, a mean of the attention's
    results, each group's experts added to it on that group's own stream."""
    groups, eps = config["expert_groups"], config["rms_norm_eps"]

    def attend(layer, x, h):
        normed = foe_oracle.rms_norm(x, weights[f"model.layers.{layer}.input_layernorm.weight"], eps)
        return foe_oracle.attention_of_group(config, weights, layer, normed, groups, h)

    embedding = weights["model.embed_tokens.weight"][tokens]
    full = embedding + sum(attend(0, embedding, h) for h in range(groups))
    for layer in range(config["num_hidden_layers"]):
        if layer > 0:
            full = sum(x + attend(layer, x, h) for h, x in enumerate(streams)) / groups
        normed = foe_oracle.rms_norm(full, weights[f"model.layers.{layer}.post_attention_layernorm.weight"], eps)
        updates = foe_oracle.experts(config, weights, layer, normed, foe_oracle.Result(None))
        streams = [full + update for update in updates]
    x = foe_oracle.rms_norm(sum(streams) / groups, weights["model.norm.weight"], eps)
    return x @ weights["lm_head.weight"].T


def relative_difference(actual, expected):
    return np.max(np.abs(actual - expected)) / np.max(np.abs(expected))


class Anchors(unittest.TestCase):
    def test_transformers(self):
        for name, kind, settings, ours in MODELS:
            with self.subTest(name):
                model, weights = hugging_face(kind, settings)
                merged = SHAPE | settings | ours
                rope = merged.pop("rope_parameters")
                merged.pop("intermediate_size", None)
                config = random_model.make_config(**merged, rope_theta=rope["rope_theta"],
                                                     rope_scaling=rope if "factor" in rope else None)
                result = foe_oracle.forward(config, weights, TOKENS)
                with torch.no_grad():
                    expected = model(torch.tensor(TOKENS)[None]).logits[0].numpy()
                difference = relative_difference(result.logits_TV, expected)
                print(f"{name}: {difference:.1e} of the largest logit, router margin {result.router_margin:.1e}")
                # In a float64 model transformers keeps norms, rotary angles and the router's softmax in float32:
                # relative errors of 2^-24 and, in the angles, of 2^-24 times a position below 64, in 3 layers.
                self.assertLess(difference, 3 * 64 * 2.0**-24)
                self.assertGreater(result.router_margin, 3 * 64 * 2.0**-24)

    def test_streams_are_the_paper(self):
        for groups in 2, 4:
            for qk_norm in "none", "head", "full":
                with self.subTest(groups=groups, qk_norm=qk_norm):
                    config = random_model.make_config(expert_groups=groups, residual="federated", qk_norm=qk_norm,
                                                         num_hidden_layers=4)
                    tensors = random_model.make_tensors(config, seed=3)
                    weights = {name: array.astype(np.float64) for name, array in tensors.items()}
                    actual = foe_oracle.forward(config, weights, TOKENS).logits_TV
                    self.assertLess(relative_difference(actual, forward_by_streams(config, weights, TOKENS)), 1e-12)

    def test_one_group_is_the_ordinary_model(self):
        config = random_model.make_config(qk_norm="full")
        weights = random_model.make_tensors(config, seed=3)
        expected = foe_oracle.forward(config, weights, TOKENS).logits_TV
        for sync in "mean", "sum":
            federated = config | {"residual": "federated", "group_sync": sync}
            np.testing.assert_array_equal(foe_oracle.forward(federated, weights, TOKENS).logits_TV, expected)


def ablations(config):
    """The ways to get one thing of this configuration wrong, as changed configurations."""
    changes = {"rms_norm_eps": config["rms_norm_eps"] * 10, "norm_topk_prob": not config["norm_topk_prob"]}
    changes["rope_scaling"] = None if config["rope_scaling"] else {"rope_type": "linear", "factor": 2.0}
    changes["rope_theta"] = config["rope_theta"] * 1.1
    if foe_oracle.is_federated(config):
        changes["residual"] = "shared"
        changes["group_sync"] = "sum" if config["group_sync"] == "mean" else "mean"
    if config["qk_norm"] != "none":
        changes["qk_norm"] = "none"
    if config["expert_groups"] > 1:
        changes["expert_groups"] = 1
    for key in PLAIN:
        if config.get(key, PLAIN[key]) not in (PLAIN[key], None):
            changes[key] = PLAIN[key]
    return [(key, config | {key: value}) for key, value in changes.items()] + ablations_of_layers(config)


# What of attention, of blocks and of the model can be left out without other tensors.
PLAIN = {"hidden_act": "silu", "embedding_factor": 1.0, "logit_factor": 1.0, "logit_softcap": 0.0,
         "residual_factor": 1.0, "parallel": False, "qkv_bias": False, "output_bias": False, "sliding_window": None,
         "sinks": False, "partial_rotary_factor": 1.0, "rope_interleaved": False, "attention_scale": 0.0,
         "attn_logit_softcapping": 0.0}


def ablations_of_layers(config):
    """The same for what "layers" says of blocks: each key in turn, in all layers."""
    changed = []
    for key, plain in (PLAIN | {"norm": "before"}).items():
        layers = json.loads(json.dumps(config.get("layers", [])))
        blocks = [block for layer in layers for block in layer["blocks"]]
        holders = [holder for block in blocks
                   for holder in (block, block.get("attention", {}), block.get("experts", {}))]
        # Other norms have other tensors.
        holders = [holder for holder in holders if holder.get(key, plain) not in (plain, "after", "shared")]
        for holder in holders:
            holder[key] = plain
        if holders:
            changed.append((key, config | {"layers": layers}))
    return changed


class Table(unittest.TestCase):
    """What logits_test.py compares must be able to fail."""

    def test_every_feature_shows(self):
        shown = {}
        for variant in logits_test.VARIANTS:
            config = variant.config
            tensors = random_model.make_tensors(config, variant.seed, variant.skew, variant.twins)
            weights = {name: array.astype(np.float64) for name, array in tensors.items()}
            expected = foe_oracle.forward(config, weights, variant.tokens, variant.routing).logits_TV
            for key, changed in ablations(config):
                actual = foe_oracle.forward(changed, weights, variant.tokens, variant.routing).logits_TV
                ratio = relative_difference(actual, expected) / logits_test.TOLERANCE
                value = config.get(key, "in layers")
                shown.setdefault((key, value if not isinstance(value, dict) else "linear"), []).append(
                    (ratio, variant.name))
        for key, ratios in shown.items():
            print(*key, "shows at", ", ".join(f"{ratio:.0f} ({name})" for ratio, name in sorted(ratios)[::-1][:3]),
                  "tolerances")
            # A difference of 50 tolerances is one that no rounding explains.
            self.assertGreater(max(ratios)[0], 50, key)


if __name__ == "__main__":
    unittest.main(verbosity=2)
