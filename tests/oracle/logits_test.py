#!/usr/bin/env python3
"""Compares `foe logits` with the float64 oracle on random models of every variant, and with golden models.

    tests/oracle/logits_test.py build/foe            # one rank; NumPy is all it needs
    tests/oracle/logits_test.py build/foe --mpirun   # several ranks too
    tests/oracle/logits_test.py build/foe -k skewed  # other arguments are unittest's

Each model runs whole, in chunks on two threads, and on a prefix of its tokens: bits must be equal, and the distance
from the oracle at most TOLERANCE of the largest logit. Every plan that takes the model, foe (federated models) or tp and
ep (the others), gives equal bits on several ranks.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import foe_oracle
import routing_oracle as systems
import safetensors_io
from random_model import write_random_model, make_config

# Of the largest logit: what float32 arithmetic is allowed to cost (2^-24 is 6e-8, over some thousand additions).
TOLERANCE = 2e-5
# Two router logits may each be off by the same share: below twice that, which expert is taken is not defined.
SMALLEST_MARGIN = 4 * TOLERANCE
GOLDEN = Path(__file__).resolve().parent.parent / "golden"
TIMEOUT_SECONDS = 120  # of one run: a hang is a failure, not a stuck job

ARGS = argparse.Namespace(foe=None, mpirun=False)


@dataclass
class Variant:
    name: str
    length: int
    seed: int
    config: dict
    dtype: str = "f32"
    skew: bool = False
    twins: bool = False
    routing: object = None  # as foe_oracle.forward() takes it

    @property
    def tokens(self):
        return np.random.default_rng(self.seed + 1000).integers(0, self.config["vocab_size"], self.length)


def variant(name, length, seed, dtype="f32", skew=False, twins=False, routing=None, **config):
    return Variant(name, length, seed, make_config(**config), dtype, skew, twins, routing)


def foe(name, length, seed, groups, sync, **options):
    return variant(name, length, seed, residual="federated", expert_groups=groups, group_sync=sync, **options)


def router(name, routing, length=33, seed=0, router=None, **config):
    """A published system's rule, as routing_oracle.py has it, and the keys that ask for it."""
    return variant(name, length, seed, routing=routing, **(config | ({"router": router} if router else {})))


def layers(name, length, seed, *entries, **config):
    """Layers that differ, as the key "layers" has them."""
    return variant(name, length, seed, layers=list(entries), num_hidden_layers=sum(e.get("repeat", 1) for e in entries),
                   **config)


def layer(attention=None, experts=None, repeat=1, attends=None, **block):
    """Entries of "layers": keys of attention and of experts, and of their blocks: `attends`, and the others."""
    return {"repeat": repeat,
            "blocks": [{"attention": attention or {}} | (attends or {}), {"experts": experts or {}} | block]}


def experts(count, per_token, width, **others):
    return {"num_experts": count, "num_experts_per_tok": per_token, "moe_intermediate_size": width} | others


def dense(width, **others):
    return {"num_experts": 0, "intermediate_size": width} | others


LINEAR = {"rope_type": "linear", "factor": 16.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 8, "mscale": 0.7,
        "mscale_all_dim": 0.3}
# Of which the second list applies, to the whole text and to half of it.
LONGROPE = {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 40,
            "short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [1.0, 1.5, 2.5, 7.0]}
ODD = dict(hidden_size=40, num_attention_heads=6, num_key_value_heads=2, head_dim=10, vocab_size=101, num_experts=12,
           moe_intermediate_size=24)

# Lengths cross a KV block (16 positions), a span of attention (128) and the chunk of the second run (7).
VARIANTS = [
    variant("moe", 20, 0, num_key_value_heads=8),
    variant("moe_one_token", 1, 0),
    variant("moe_one_layer", 7, 0, num_hidden_layers=1),
    variant("moe_top1", 33, 0, num_experts_per_tok=1),
    variant("moe_every_expert", 20, 0, num_experts=4, num_experts_per_tok=4),
    variant("moe_qk_full", 100, 0, qk_norm="full"),
    variant("moe_qk_head_norm_topk", 100, 2, qk_norm="head", norm_topk_prob=True, num_key_value_heads=2),
    variant("moe_rope_linear", 200, 0, rope_scaling=LINEAR, rope_theta=500000.0),
    variant("moe_tied_large_eps", 20, 0, tie_word_embeddings=True, rms_norm_eps=1e-2),
    variant("moe_skewed", 200, 0, skew=True),
    variant("moe_bf16", 100, 1, dtype="bf16"),
    variant("moe_ties", 33, 0, twins=True, num_experts_per_tok=3),
    variant("moe_odd_sizes", 100, 0, num_experts_per_tok=5, num_hidden_layers=3, **ODD),
    variant("moge_h2", 20, 0, expert_groups=2),
    variant("moge_h4_qk_full_norm_topk", 100, 0, expert_groups=4, qk_norm="full", norm_topk_prob=True),
    variant("moge_h4_skewed", 200, 0, expert_groups=4, skew=True),
    variant("dense", 100, 0, num_experts=0, num_experts_per_tok=0, moe_intermediate_size=96),
    variant("dense_tied_qk_head_bf16", 20, 0, dtype="bf16", num_experts=0, num_experts_per_tok=0,
            moe_intermediate_size=88, qk_norm="head", tie_word_embeddings=True),
    foe("foe_h1", 20, 0, 1, "mean"),
    foe("foe_h2_mean", 7, 0, 2, "mean"),
    foe("foe_h2_sum_odd_sizes", 100, 0, 2, "sum", num_experts_per_tok=4, **ODD),
    foe("foe_h3_mean", 40, 0, 3, "mean", num_experts_per_tok=3, num_experts=15, num_attention_heads=9,
        num_key_value_heads=3, num_hidden_layers=3),
    foe("foe_h4_one_token", 1, 0, 4, "mean"),
    foe("foe_h4_one_layer", 7, 0, 4, "sum", num_hidden_layers=1),
    foe("foe_h4_mean_qk_full", 100, 1, 4, "mean", qk_norm="full", num_hidden_layers=4),
    foe("foe_h4_sum_qk_full_wide_groups", 33, 0, 4, "sum", qk_norm="full", num_attention_heads=16,
        num_key_value_heads=8),
    foe("foe_h4_sum_qk_head_top2", 100, 0, 4, "sum", qk_norm="head", num_experts_per_tok=8, num_hidden_layers=4),
    foe("foe_h4_mean_norm_topk_tied", 20, 0, 4, "mean", norm_topk_prob=True, tie_word_embeddings=True),
    foe("foe_h4_sum_rope_linear", 200, 1, 4, "sum", rope_scaling=LINEAR, rope_theta=500000.0),
    foe("foe_h4_mean_skewed", 200, 0, 4, "mean", skew=True),
    foe("foe_h4_sum_ties", 33, 0, 4, "sum", twins=True, num_experts=24),
    foe("foe_h4_sum_bf16", 100, 1, 4, "sum", dtype="bf16"),
    foe("foe_h4_mean_three_spans", 300, 2, 4, "mean", num_experts=8),
    router("qwen3_moe", lambda z, b: systems.olmoe(z, 4, norm_topk_prob=True), norm_topk_prob=True),
    router("mixtral_is_qwen3", lambda z, b: systems.mixtral(z, 4), norm_topk_prob=True),
    router("softmax_of_selected", lambda z, b: systems.mixtral(z, 4), router={"score": "selected_softmax"}),
    router("deepseek_v2", lambda z, b: systems.deepseek_v2(z, 4, 8, 3, 3.0), num_shared_experts=2,
           router={"n_group": 8, "topk_group": 3, "group_score": "max", "scale": 3.0}),
    router("deepseek_v3", lambda z, b: systems.deepseek_v3(z, b, 4, 4, 2, 2.5), num_shared_experts=1,
           router={"score": "sigmoid", "selection_bias": True, "n_group": 4, "topk_group": 2,
                   "group_score": "top2_sum", "norm": "selected", "scale": 2.5}),
    router("sigmoid_not_normed", lambda z, b: systems.deepseek_v3(z, b, 4, 1, 1, 1.5, norm_topk_prob=False),
           router={"score": "sigmoid", "selection_bias": True, "scale": 1.5}),
    router("ernie", lambda z, b: systems.ernie(z, b, 4, 1e-12), num_shared_experts=2,
           router={"selection_bias": True, "norm": "selected", "norm_min": 1e-12}),
    router("norm_min", lambda z, b: systems.ernie(z, b, 4, 0.5),
           router={"selection_bias": True, "norm": "selected", "norm_min": 0.5}),
    router("top_p", lambda z, b: systems.top_p(z, 0.4, 6), length=100, num_experts_per_tok=6, router={"top_p": 0.4}),
    router("ada_moe", lambda z, b: systems.ada_moe(z, 6, 16), zero_experts=16, num_experts_per_tok=6,
           router={"norm": "computing"}),
    router("moe_plus_plus", lambda z, b: systems.olmoe(z, 4), length=100, num_experts=12, constant_experts=2,
           copy_experts=1, zero_experts=1),
    router("slices_of_one_network", lambda z, b: systems.ones(z, 4, 0.5), expert_storage="slices",
           router={"score": "one", "scale": 0.5}),
    variant("shared_gated", 33, 0, num_shared_experts=3, shared_gate=True),
    variant("shared_gated_wide", 33, 0, num_shared_experts=1, shared_intermediate_size=56, shared_gate=True),
    variant("shared_narrow", 100, 0, num_shared_experts=2, shared_intermediate_size=17),
    layers("shared_by_layer", 33, 0, layer(experts={"num_shared_experts": 3, "shared_intermediate_size": 40}),
           layer(experts=dense(96)), layer(experts=experts(8, 2, 40, num_shared_experts=1))),
    foe("foe_h2_shared_wide", 100, 0, 2, "sum", num_shared_experts=4, shared_intermediate_size=50),
    variant("moge_h2_every_kind", 100, 0, expert_groups=2, num_experts=12, constant_experts=2, copy_experts=4,
            zero_experts=2, num_shared_experts=4, num_experts_per_tok=6),
    foe("foe_h2_every_kind", 100, 0, 2, "sum", num_experts=12, constant_experts=2, copy_experts=4, zero_experts=2,
        num_shared_experts=4, shared_gate=True, num_experts_per_tok=6),
    foe("foe_h4_norm_topk_copies", 33, 0, 4, "mean", copy_experts=8, num_experts_per_tok=8, norm_topk_prob=True),
    # Layers of different shapes, and what blocks do besides reading norm(r) and adding to it.
    layers("dense_first", 100, 0, layer(experts=dense(200)), layer(repeat=2), num_shared_experts=1),
    layers("dense_between_wide", 33, 0, layer(), layer(experts=dense(300)), layer(experts=experts(5, 2, 40))),
    layers("experts_by_layer", 100, 0, layer(), layer(experts=experts(8, 2, 48, norm_topk_prob=True)),
           layer(experts=experts(12, 3, 24, num_shared_experts=2, shared_gate=True)),
           layer(experts={"zero_experts": 4, "router": {"scale": 2.0}})),
    layers("experts_of_another_layer", 33, 0, layer(), layer(experts=experts(8, 2, 48)),
           layer(experts={"experts_of_layer": 0})),
    layers("slices_in_one_layer", 33, 0, layer(experts={"expert_storage": "slices"}), layer()),
    layers("moge_h2_dense_between", 33, 0, layer(), layer(experts=dense(96)), layer(experts=experts(6, 2, 40)),
           expert_groups=2),
    layers("foe_h2_experts_by_layer", 100, 0, layer(), layer(experts=experts(6, 2, 40)),
           layer(experts=experts(10, 6, 24, copy_experts=2)), residual="federated", expert_groups=2, group_sync="sum"),
    layers("parallel", 100, 2, layer(parallel=True, repeat=2), layer()),  # GPT-NeoX
    layers("parallel_shared_norm_dense", 100, 0, layer(parallel=True, norm="shared", repeat=2),  # Cohere
           num_experts=0, num_experts_per_tok=0, moe_intermediate_size=150),
    layers("parallel_scaled", 33, 0,
           layer(attends={"residual_factor": 0.5}, residual_factor=0.75, parallel=True, repeat=2)),
    layers("granite", 100, 0, layer(attends={"residual_factor": 0.25}, residual_factor=0.25, repeat=3),
           embedding_factor=0.5, logit_factor=0.125),
    layers("foe_h4_factors", 100, 1, layer(attends={"residual_factor": 0.5}, residual_factor=2.0, repeat=3),
           residual="federated", expert_groups=4, embedding_factor=1.5),
    # Federations with one sum in each layer, whose blocks read what they must, and with one in every other layer.
    layers("foe_h4_parallel", 100, 0, layer(attends={"residual_factor": 0.5}, parallel=True, repeat=3),
           residual="federated", expert_groups=4),
    layers("foe_h2_parallel_shared_norm", 33, 0, layer(norm="shared", parallel=True, repeat=2), residual="federated",
           expert_groups=2, group_sync="sum", router={"across_groups": True}, num_experts_per_tok=3),
    layers("foe_h4_delayed", 100, 4, layer(), layer(attends={"parallel": True}, repeat=2), residual="federated",
           expert_groups=4, group_sync="sum", router={"across_groups": True}, norm_topk_prob=True),
    layers("foe_h2_delayed_by_layer", 33, 0, layer(), layer(attends={"parallel": True}), layer(norm="after"),
           residual="federated", expert_groups=2),
    foe("foe_h4_every_second", 40, 0, 4, "sum", group_sync_every=2, num_hidden_layers=4, norm_topk_prob=True),
    layers("foe_h2_every_third", 33, 0, layer(repeat=2), layer(norm="both", residual_factor=0.5), residual="federated",
           expert_groups=2, group_sync_every=3, num_shared_experts=2, copy_experts=4),
    variant("logit_softcap", 33, 0, logit_softcap=2.5, logit_factor=0.5, tie_word_embeddings=True),
    variant("gelu", 100, 0, hidden_act="gelu_pytorch_tanh", num_shared_experts=1),
    variant("relu2_dense", 33, 0, hidden_act="relu2", num_experts=0, num_experts_per_tok=0, moe_intermediate_size=96),
    layers("activations_by_layer", 33, 5, layer(experts={"hidden_act": "relu2"}), layer(),
           layer(experts=dense(200, hidden_act="gelu_pytorch_tanh"))),
    foe("foe_h2_relu2", 33, 0, 2, "mean", hidden_act="relu2"),
    # Norms after blocks.
    layers("olmo2", 100, 0, layer(attends={"norm": "after"}, norm="after", repeat=3), qk_norm="full"),
    layers("olmo2_dense_tied", 33, 0, layer(attends={"norm": "after"}, norm="after", repeat=2), qk_norm="full",
           num_experts=0, num_experts_per_tok=0, moe_intermediate_size=150, tie_word_embeddings=True),
    layers("norms_both", 100, 0, layer(attends={"norm": "both"}, norm="both", repeat=3), hidden_act="gelu_pytorch_tanh",
           embedding_factor=2.0, num_shared_experts=1, copy_experts=2),
    layers("norms_by_layer", 33, 0, layer(attends={"norm": "after"}), layer(norm="both"), layer(norm="after"),
           layer(attends={"norm": "both"}, experts=dense(96))),
    layers("parallel_norms_both", 33, 1,
           layer(attends={"norm": "both", "residual_factor": 0.5}, norm="both", parallel=True, residual_factor=0.75),
           layer(norm="shared", parallel=True)),
    layers("foe_h4_norm_after_experts", 100, 0, layer(norm="after", residual_factor=0.5), layer(norm="both", repeat=2),
           residual="federated", expert_groups=4, group_sync="sum"),
    layers("foe_h2_norm_both_every_kind", 33, 0, layer(norm="both", repeat=2), residual="federated", expert_groups=2,
           num_experts=12, copy_experts=4, constant_experts=2, num_shared_experts=2),
    # Attention's parameters.
    layers("local_and_global", 100, 1, layer({"sliding_window": 32}), layer({"sliding_window": 5, "rope_theta": 500.0}),
           layer({"rope_theta": 1e6, "rope_scaling": LINEAR})),
    layers("gemma2_tied", 200, 0, layer({"sliding_window": 64}, attends={"norm": "both"}, norm="both"),
           layer(attends={"norm": "both"}, norm="both"), num_experts=0, num_experts_per_tok=0, moe_intermediate_size=96,
           hidden_act="gelu_pytorch_tanh", attn_logit_softcapping=5.0, logit_softcap=3.0, attention_scale=0.5,
           embedding_factor=1.5, tie_word_embeddings=True),
    layers("gpt_oss", 100, 1, layer({"sliding_window": 24}), layer(), sinks=True, qkv_bias=True, output_bias=True,
           routing=lambda z, b: systems.mixtral(z, 4), router={"score": "selected_softmax", "bias": True},
           mlp_bias=True, swiglu_alpha=1.702, swiglu_limit=1.5, up_offset=1.0),
    variant("network_biases", 33, 0, mlp_bias=True, router={"bias": True}),
    variant("dense_network_biases", 33, 0, mlp_bias=True, swiglu_limit=1.0, hidden_act="gelu_pytorch_tanh",
            num_experts=0, num_experts_per_tok=0, moe_intermediate_size=300),
    foe("foe_h2_network_biases", 33, 0, 2, "mean", mlp_bias=True, router={"bias": True}, up_offset=-0.5),
    layers("network_biases_by_layer", 33, 0, layer(experts=dense(300, mlp_bias=True)), layer(experts={"mlp_bias": True}),
           layer(experts={"experts_of_layer": 1, "mlp_bias": True}), layer(experts={"swiglu_alpha": 2.0})),
    variant("glm", 100, 0, partial_rotary_factor=0.5, rope_interleaved=True, qkv_bias=True),
    foe("foe_h4_sinks_and_biases", 100, 0, 4, "sum", sinks=True, qkv_bias=True, output_bias=True, num_hidden_layers=3),
    layers("stretched_rope", 100, 2, layer({"rope_scaling": LLAMA3}), layer({"rope_scaling": YARN | {"truncate": False}}),
           layer({"rope_scaling": LONGROPE})),
    variant("yarn_interleaved", 100, 0, rope_scaling=YARN | {"attention_factor": 1.2}, rope_interleaved=True),
    variant("rope_f32", 100, 0, rope_scaling=LLAMA3, rope_f32=True),
    variant("norm_offset", 33, 0, norm_offset=1.0, qk_norm="head"),
    variant("hunyuan", 100, 0, qk_norm="head", qk_norm_after_rope=True, num_shared_experts=1, norm_topk_prob=True),
    variant("qk_full_after_rope", 100, 0, qk_norm="full", qk_norm_after_rope=True, partial_rotary_factor=0.5),
    foe("foe_h2_qk_full_after_rope", 33, 0, 2, "sum", qk_norm="full", qk_norm_after_rope=True),
    layers("without_rope", 100, 1, layer(repeat=2), layer({"partial_rotary_factor": 0.0})),
    variant("narrow_values", 100, 0, v_head_dim=5, qk_norm="full"),
    variant("wide_values_interleaved", 33, 0, v_head_dim=20, rope_interleaved=True, attention_scale=0.2),
    layers("foe_h2_attention", 100, 1, layer({"sliding_window": 17}), layer({"partial_rotary_factor": 0.5}),
           layer({"attn_logit_softcapping": 4.0}), residual="federated", expert_groups=2, v_head_dim=12),
]


def run_foe(model, tokens, output, *flags, ranks=1):
    """Runs `foe logits` and returns the finished process; long token lists go through a file."""
    ids = ",".join(map(str, tokens))
    if len(tokens) > 50:
        output.with_suffix(".tokens").write_text(ids + "\n")
        ids = f"@{output.with_suffix('.tokens')}"
    command = [ARGS.foe, "logits", model, "--tokens", ids, "--output", output, *flags]
    environment = dict(os.environ)
    if ranks > 1:
        # More ranks than cores, as root in a container; a rank that waits must not keep the core from those that work.
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        command = ["mpirun", "-n", ranks, "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
                   *command]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True,
                          timeout=TIMEOUT_SECONDS)


class LogitsTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="foe_oracle_"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.runs = 0

    def logits_file(self, model, tokens, *flags, ranks=1):
        """Runs foe, which must succeed, and returns the file it wrote."""
        self.runs += 1
        output = self.folder / f"{self.runs}.safetensors"
        done = run_foe(model, tokens, output, *flags, ranks=ranks)
        self.assertEqual(done.returncode, 0, f"{' '.join(map(str, done.args))}\n{done.stdout}{done.stderr}")
        return output

    def assert_close(self, path, expected_TV, what, positions=slice(None)):
        actual_TV = safetensors_io.read(path)["logits"][positions]
        self.assertEqual(actual_TV.dtype, np.float32)
        self.assertEqual(actual_TV.shape, expected_TV.shape)
        by_position_T = np.max(np.abs(actual_TV - expected_TV), axis=1) / np.max(np.abs(expected_TV))
        difference = np.max(by_position_T)
        if not difference <= TOLERANCE:  # and not ">": a NaN fails
            wrong = np.flatnonzero(~(by_position_T <= TOLERANCE)).tolist()
            self.fail(f"{what}: off by {difference:.2e} of the largest logit, not {TOLERANCE:.0e}; positions {wrong}")
        return difference

    def assert_same_bits(self, path, reference, what):
        if path.read_bytes() != reference.read_bytes():
            a, b = safetensors_io.read(path)["logits"], safetensors_io.read(reference)["logits"]
            self.assertEqual(a.shape, b.shape, what)
            rows = np.flatnonzero(np.any(a.view(np.uint32) != b.view(np.uint32), axis=1))
            self.fail(f"{what}: bits differ at positions {rows.tolist()}, by at most {np.max(np.abs(a - b)):.2e}")

    def check_one_rank(self, model, tokens, expected_TV, plan, *flags, positions=slice(None)):
        """Returns the file of the plain run and its distance from the oracle, which may be of some positions only."""
        whole = self.logits_file(model, tokens, "--threads", "1", *flags)
        difference = self.assert_close(whole, expected_TV, "one rank", positions)
        planned = self.logits_file(model, tokens, "--threads", "1", "--plan", plan, *flags)
        self.assert_same_bits(planned, whole, f"--plan {plan}")
        chunked = self.logits_file(model, tokens, "--threads", "2", "--chunk", "7", *flags)
        self.assert_same_bits(chunked, whole, "--threads 2 --chunk 7")
        prefix = tokens[: (len(tokens) + 1) // 2]
        bits = safetensors_io.read(self.logits_file(model, prefix, "--threads", "2", *flags))["logits"].tobytes()
        self.assertEqual(bits, safetensors_io.read(whole)["logits"][: len(prefix)].tobytes(), "a prefix, --threads 2")
        return whole, difference

    def check_ranks(self, model, config, tokens, whole, plan, number):
        """Starting processes takes most of the time, so variant `number` gets one number of ranks, 2, 3 and 4 in turn, its
        first plan, and one of the others, in turn. tests/model has all of them, with threads."""
        # Plan foe with two groups: three ranks leave one idle and four share the groups.
        ranks = 2 + number % 3
        plans = [("--plan", plan, "--threads", "1")]
        others = [("--plan", "pp", "--chunk", "150")]
        if plan == "tp" and any(e["num_experts"] > 0 for _, e in foe_oracle.layers_of(config)):
            others += [("--plan", "ep", "--dispatch", "expert" if ranks == 3 else "rank"),
                       ("--plan", "ep", "--ep-attention", "split", "--chunk", "150")]
        plans.append(others[number // 3 % len(others)])
        for flags in plans:
            used = min(ranks, config["num_hidden_layers"]) if "pp" in flags else ranks
            path = self.logits_file(model, tokens, *flags, ranks=used)
            self.assert_same_bits(path, whole, f"{' '.join(flags)} on {used} ranks")

    def check_variant(self, variant):
        model = self.folder / "model"
        write_random_model(model, variant.config, variant.seed, variant.dtype, variant.skew, variant.twins)
        oracle = foe_oracle.forward(*foe_oracle.load(model), variant.tokens, variant.routing)
        # The model must test what it is there for: choices that rounding cannot flip, experts that matter.
        self.assertGreater(oracle.router_margin, SMALLEST_MARGIN, "router margin: choose another seed")
        self.assertGreater(min(oracle.expert_share), 0.2, "share of the experts in the residual")
        if variant.skew:
            chosen = variant.config["num_experts_per_tok"]
            for tokens_E in oracle.expert_tokens:
                self.assertGreater(np.sum(np.sort(tokens_E)[-chosen:]) / np.sum(tokens_E), 0.8, "share of the favoured")
        plan = "foe" if foe_oracle.is_federated(variant.config) else "tp"
        whole, difference = self.check_one_rank(model, variant.tokens, oracle.logits_TV, plan)
        if ARGS.mpirun:
            self.check_ranks(model, variant.config, variant.tokens, whole, plan, VARIANTS.index(variant))
        print(f"off by {difference:.1e}, margin {oracle.router_margin:.1e}", end=" ... ", flush=True)

    def check_golden(self, name):
        expected = safetensors_io.read(GOLDEN / name / "expected.safetensors")
        _, difference = self.check_one_rank(GOLDEN / name, expected["tokens"], expected["logits"], "tp")
        print(f"off by {difference:.1e}", end=" ... ", flush=True)

    def check_gguf(self, name):
        """Any of a file's shards names them all. Without logits of its own it is a model of tests/golden/families."""
        own = GOLDEN / "gguf" / f"{name}.expected.safetensors"
        expected = safetensors_io.read(own if own.exists() else GOLDEN / "families" / name / "expected.safetensors")
        model = GOLDEN / "gguf" / f"{name}.gguf"
        if not model.exists():
            model = sorted((GOLDEN / "gguf").glob(f"{name}-*.gguf"))[-1]
        exact = "--dtype", "f32"
        whole, difference = self.check_one_rank(model, expected["tokens"], expected["logits"], "tp", *exact,
                                                positions=expected.get("positions", slice(None)))
        if ARGS.mpirun:
            for plan in ["tp"] + ["ep"] * (b"ffn_gate_exps" in model.read_bytes()):
                path = self.logits_file(model, expected["tokens"], "--plan", plan, *exact, ranks=2)
                self.assert_same_bits(path, whole, f"{plan} on 2 ranks")
        print(f"off by {difference:.1e}", end=" ... ", flush=True)

    def test_one_group_has_nothing_to_federate(self):
        files = []
        for residual in "shared", "federated":
            model = self.folder / residual
            write_random_model(model, make_config(residual=residual), seed=0)
            files.append(self.logits_file(model, range(40)))
        self.assert_same_bits(*files, "H = 1, federated against shared")

    def test_plans_refuse_what_they_cannot_run(self):
        for residual, plan in ("shared", "foe"), ("federated", "tp"):
            model = self.folder / residual
            write_random_model(model, make_config(residual=residual, expert_groups=2), seed=0)
            done = run_foe(model, [1, 2, 3], self.folder / "refused.safetensors", "--plan", plan)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("federated", done.stderr)
            self.assertFalse((self.folder / "refused.safetensors").exists())
        for plan in "tp", "pp":
            done = run_foe(self.folder / "shared", [1, 2, 3], self.folder / "refused.safetensors", "--plan", plan,
                           "--ep-attention", "split")
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("ep-attention split: expected plan ep or foe", done.stderr)


def add_test(name, check, argument):
    setattr(LogitsTest, f"test_{name}", lambda self: check(self, argument))


for v in VARIANTS:
    add_test(v.name, LogitsTest.check_variant, v)
for folder in sorted(GOLDEN.glob("*/expected.safetensors")):
    add_test(f"golden_{folder.parent.name}", LogitsTest.check_golden, folder.parent.name)
for file_name in sorted({file.stem.split("-")[0] for file in (GOLDEN / "gguf").glob("*.gguf")}):
    add_test(f"gguf_{file_name}", LogitsTest.check_gguf, file_name)


def main():
    parser = argparse.ArgumentParser(description="Compare `foe logits` with the oracle.")
    parser.add_argument("foe", help="the binary")
    parser.add_argument("--mpirun", action="store_true", help="run on several ranks too: 2, 3 or 4")
    _, others = parser.parse_known_args(namespace=ARGS)
    unittest.main(argv=["logits_test.py", "-v", *others])


if __name__ == "__main__":
    main()
