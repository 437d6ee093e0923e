#!/usr/bin/env python3
"""Makes the small GGUF files in tests/golden/gguf, and the logits that the float64 oracle gives for them.

    tools/make_gguf_goldens.py [NAME ...]     # of all models without names; and blocks.json

Weights are random; their types, the names of tensors and keys, and the order of rows are those of llama.cpp's converter.
A file of expected logits has `tokens` (I64 [T]) and `logits` (F32 [T, V]): tests/oracle/foe_oracle.py computes them from
the weights as the PyPI package `gguf` dequantises them. Files without one are the models of the same name in
tests/golden/families, by the names and keys of that package, so that the logits of `transformers` are expected.
The package has no quantiser of the K types: here their blocks are random. blocks.json has random blocks of each type,
and what that package makes of them.
Needs numpy and gguf (0.19).
"""

import json
import re
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "golden" / "gguf"
sys.path.insert(0, str(ROOT / "tests" / "oracle"))

import foe_oracle  # noqa: E402
import random_model  # noqa: E402
import routing_oracle as systems  # noqa: E402
import safetensors_io  # noqa: E402

TOKENS = 60


# --- blocks of the K types, of random codes: values are about normal with the deviation `scale`

def scales_and_minima(rng, blocks):
    s = rng.integers(10, 64, (blocks, 8))
    m = np.clip(s + rng.integers(-3, 4, (blocks, 8)), 0, 63)
    low = np.concatenate([s[:, :4] | (s[:, 4:] >> 4 << 6), m[:, :4] | (m[:, 4:] >> 4 << 6)], axis=1)
    return np.concatenate([low, (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)], axis=1).astype(np.uint8)


def halves(*values):
    return np.stack(values, axis=1).astype(np.float16).view(np.uint8)


def random_k_blocks(rng, kind, blocks, scale):
    def random_bytes(count):
        return rng.integers(0, 256, (blocks, count)).astype(np.uint8)

    spread = 1 + 0.2 * rng.standard_normal(blocks)
    if kind == T.Q6_K:
        s = (rng.integers(20, 128, (blocks, 16)) * rng.choice([-1, 1], (blocks, 16))).astype(np.int8).view(np.uint8)
        return np.concatenate([random_bytes(192), s, halves(spread * scale / 1350)], axis=1)
    codes = 16 if kind == T.Q4_K else 32
    d = spread * scale / (36 * codes / 12**0.5)
    return np.concatenate([halves(d, d * (codes - 1) / 2), scales_and_minima(rng, blocks),
                           random_bytes(128 if kind == T.Q4_K else 160)], axis=1)


def encode(rng, array, kind):
    """Returns the bytes of a tensor [rows, bytes of a row], and the values that they mean."""
    array = array.astype(np.float32)
    if kind in (T.Q4_K, T.Q5_K, T.Q6_K):
        rows, columns = array.reshape(-1, array.shape[-1]).shape
        data = random_k_blocks(rng, kind, rows * columns // 256, np.std(array))
        data = data.reshape(*array.shape[:-1], -1)
    else:
        data = gguf.quants.quantize(array, kind)
    values = gguf.quants.dequantize(data, kind).reshape(array.shape)
    return data, values.astype(np.float32)


# --- models

def interleaved(array, heads):
    """Rows of q or k in the order of the llama architecture: the two of a pair that RoPE rotates beside each other."""
    shape = array.shape
    return array.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def split_halves(array, heads):
    """The other way."""
    shape = array.shape
    return array.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


class Model:
    """One file: its architecture, its oracle's configuration, and the types of tensors by the end of their names."""

    def __init__(self, name, architecture, types, keys=None, reordered=False, seed=0, names=None, shards=0, fused=False,
                 routing=None, gains=None, **config):
        self.name, self.architecture, self.types, self.keys = name, architecture, types, keys or {}
        self.reordered, self.seed, self.shards, self.fused = reordered, seed, shards, fused
        self.routing = routing  # as foe_oracle.forward() takes it
        self.gains = gains or {}  # by the end of a tensor's name: what to multiply it by
        shape = dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=96,
                     num_experts=0, num_experts_per_tok=0, moe_intermediate_size=96, rms_norm_eps=1e-5,
                     max_position_embeddings=128)
        self.width = config.pop("intermediate_size", None)
        self.config = random_model.make_config(**(shape | config))
        self.names = NAMES | (names or {})

    def type_of(self, name, array):
        if array.ndim == 1 or "ffn_gate_inp" in name or name.endswith(".bias"):
            return T.F32
        return next((kind for end, kind in self.types.items() if name.endswith(end)), self.types[""])

    def tensors(self):
        """Yields (name in the file, names in the oracle, array); experts are one tensor of all."""
        plain = random_model.make_tensors(self.config, self.seed)
        experts = {}
        for name, array in plain.items():
            if ".experts." in name:
                before, _, rest = name.partition(".experts.")
                experts.setdefault(f"{before}.experts.{rest.split('.', 1)[1]}", []).append((name, array))
            else:
                yield self.file_name(name), [name], array
        for name, members in experts.items():
            yield self.file_name(name), [member for member, _ in members], np.stack([array for _, array in members])

    def fused_tensors(self):
        """The same, with the rows of q, k and v, and of gate and up, in one tensor each (Phi-3)."""
        joined = {}
        for file_name, names, array in self.tensors():
            before, _, part = file_name.rpartition(".attn_")
            target = {"q.weight": "attn_qkv.weight", "k.weight": "attn_qkv.weight", "v.weight": "attn_qkv.weight"}.get(part)
            if file_name.endswith(("ffn_gate.weight", "ffn_up.weight")):
                before, target = file_name.rsplit(".", 2)[0], "ffn_up.weight"
            if self.fused and target:
                joined.setdefault(f"{before}.{target}", []).append((names[0], array))
            else:
                yield file_name, names, array
        for file_name, members in joined.items():
            yield file_name, [name for name, _ in members], np.concatenate([array for _, array in members])

    def file_name(self, name):
        if not name.startswith("model.layers."):
            return self.names[name]
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{self.names[rest]}"

    def heads_of(self, name):
        if not self.reordered:
            return 0
        return {"attn_q": self.config["num_attention_heads"],
                "attn_k": self.config["num_key_value_heads"]}.get(name.split(".")[-2], 0)

    def write(self):
        rng = np.random.default_rng(self.seed + 500)
        path = OUT / f"{self.name}.gguf"
        writer = gguf.GGUFWriter(path, self.architecture, split_max_tensors=self.shards)
        self.write_keys(writer)
        weights = {}
        for file_name, names, array in self.fused_tensors():
            heads = self.heads_of(file_name)
            if heads:
                array = interleaved(array, heads)
            for end, gain in self.gains.items():
                array = array * gain if file_name.endswith(end) else array
            kind = self.type_of(file_name, array)
            data, values = encode(rng, array, kind)
            # The converter writes the one row of a shared expert's gate as a matrix, llama-quantize as a vector.
            data = data[0] if file_name == "blk.0.ffn_gate_inp_shexp.weight" else data
            writer.add_tensor(file_name, data, raw_dtype=kind)
            if heads:
                values = split_halves(values, heads)
            parts = [values] if len(names) == 1 else values
            if len(names) > 1 and "_exps" not in file_name:
                shapes = random_model.make_tensors(self.config, self.seed)
                parts = np.split(values, np.cumsum([shapes[name].shape[0] for name in names])[:-1])
            for name, part in zip(names, parts, strict=True):
                weights[name] = part.astype(np.float64)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        tokens = np.random.default_rng(self.seed + 1000).integers(0, self.config["vocab_size"], TOKENS)
        result = foe_oracle.forward(self.config, weights, tokens, self.routing)
        assert result.router_margin > 1e-4, (self.name, "choose another seed", result.router_margin)
        safetensors_io.write(OUT / f"{self.name}.expected.safetensors",
                             {"tokens": tokens.astype(np.int64), "logits": result.logits_TV.astype(np.float32)})

    def write_keys(self, writer):
        c = self.config
        writer.add_context_length(c["max_position_embeddings"])
        writer.add_block_count(c["num_hidden_layers"])
        writer.add_embedding_length(c["hidden_size"])
        writer.add_head_count(c["num_attention_heads"])
        writer.add_head_count_kv(c["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
        writer.add_rope_freq_base(c["rope_theta"])
        writer.add_rope_dimension_count(int(c["head_dim"] * c.get("partial_rotary_factor", 1)))
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
        writer.add_feed_forward_length(self.width or c["moe_intermediate_size"])
        if c["num_experts"]:
            writer.add_expert_count(c["num_experts"])
            writer.add_expert_used_count(c["num_experts_per_tok"])
        for key, value in self.keys.items():
            key = f"{self.architecture}.{key}"
            {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
             list: writer.add_array}[type(value)](key, value)


NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.bias": "ffn_gate_inp.bias",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "self_attn.sinks": "attn_sinks.weight",
} | {f"self_attn.{ours}.{end}": f"attn_{theirs}.{end}" for end in ("weight", "bias") for ours, theirs in
     {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "output", "q_norm": "q_norm", "k_norm": "k_norm"}.items()
} | {f"mlp.{ours}{part}_proj.{end}": f"ffn_{part}{theirs}.{end}" for part in ("gate", "up", "down")
     for ours, theirs in {"": "", "experts.": "_exps", "shared_experts.": "_shexp"}.items() for end in ("weight", "bias")}
# Gemma 2 and OLMo 2 have norms after blocks.
NORMS_AFTER = {"post_attention_layernorm.weight": "post_attention_norm.weight",
               "pre_feedforward_layernorm.weight": "ffn_norm.weight",
               "post_feedforward_layernorm.weight": "post_ffw_norm.weight"}


# --- the models of tests/golden/families

class Family:
    """One of them as llama.cpp's converter writes it. Names of tensors are those that the package `gguf` gives, keys are
    those of its writer's functions: what the base of all converters writes, and `keys`, what this one adds."""

    def __init__(self, name, architecture, reordered=False, further_layers=0, fused=False, **keys):
        self.name, self.architecture, self.reordered, self.fused = name, architecture, reordered, fused
        self.further_layers, self.keys = further_layers, keys
        folder = ROOT / "tests" / "golden" / "families" / name
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = safetensors_io.read(folder / "model.safetensors")
        self.blocks = self.config["num_hidden_layers"] + further_layers
        self.map = gguf.get_tensor_name_map(architecture, self.blocks)

    def tensors(self):
        """Yields (name in the file, array)."""
        experts = {}
        for name, array in self.weights.items():
            name = name.replace("e_score_correction_bias", "e_score_correction.bias")
            layer = re.search(r"\.(\d+)\.", name)
            if match := re.search(r"\.experts\.\d+", name):
                experts.setdefault(name.replace(match.group(), ".experts"), []).append(
                    (int(match.group().rsplit(".")[-1]), array))
            elif name.endswith("input_linear.weight"):  # Granite's
                parts = ("FFN_GATE_SHEXP", "FFN_UP_SHEXP") if "shared" in name else ("FFN_GATE_EXP", "FFN_UP_EXP")
                for part, half in zip(parts, np.split(array, 2, axis=-2)):
                    tensor = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR[part]]
                    yield tensor.format(bid=layer.group(1)) + ".weight", half
            else:
                yield self.file_name(name), array
        stacks = {self.file_name(name): np.stack([array for _, array in sorted(members, key=lambda m: m[0])])
                  for name, members in experts.items()}
        for name in [name for name in stacks if self.fused and "ffn_gate_exps" in name]:  # --fuse-gate-up-exps
            both = [stacks.pop(name), stacks.pop(name.replace("gate", "up"))]
            stacks[name.replace("gate", "gate_up")] = np.concatenate(both, axis=1)
        yield from stacks.items()
        for layer in range(self.blocks - self.further_layers, self.blocks):  # which predict further tokens
            for end in "attn_norm", "nextn.enorm", "nextn.hnorm":
                yield f"blk.{layer}.{end}.weight", np.ones(self.config["hidden_size"], np.float32)

    def file_name(self, name):
        found = self.map.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, name
        return found

    def write(self):
        writer = gguf.GGUFWriter(OUT / f"{self.name}.gguf", gguf.MODEL_ARCH_NAMES[self.architecture])
        for key, value in (self.common_keys() | self.keys).items():
            if value is not None:
                getattr(writer, f"add_{key}")(value)
        for name, array in self.tensors():
            heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(name.split(".")[-2])
            writer.add_tensor(name, interleaved(array, self.config[heads]) if heads and self.reordered else array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def common_keys(self):
        c = self.config
        get, rope = c.get, c["rope_parameters"]
        yarn = {"rope_scaling_type": gguf.RopeScalingType.YARN, "rope_scaling_factor": rope.get("factor"),
                "rope_scaling_orig_ctx_len": rope.get("original_max_position_embeddings")}
        return {
            "block_count": self.blocks, "context_length": c["max_position_embeddings"],
            "embedding_length": c["hidden_size"], "feed_forward_length": get("intermediate_size"),
            "head_count": c["num_attention_heads"], "head_count_kv": c["num_key_value_heads"],
            "rope_freq_base": rope["rope_theta"], "layer_norm_rms_eps": c["rms_norm_eps"],
            "expert_count": get("num_local_experts") or get("n_routed_experts"),
            "expert_used_count": get("num_experts_per_tok"), "expert_group_count": get("n_group"),
            "expert_group_used_count": get("topk_group"), "key_length": get("head_dim"), "value_length": get("head_dim"),
        } | (yarn if rope["rope_type"] == "yarn" else {})


SIGMOID = gguf.ExpertGatingFuncType.SIGMOID
FAMILIES = [
    Family("glm4_moe", gguf.MODEL_ARCH.GLM4_MOE, further_layers=1, rope_dimension_count=6, expert_feed_forward_length=12,
           expert_shared_count=1, leading_dense_block_count=1, expert_gating_func=SIGMOID, expert_weights_scale=2.5,
           expert_weights_norm=True, nextn_predict_layers=1),
    Family("solar_open", gguf.MODEL_ARCH.GLM4_MOE, fused=True, rope_dimension_count=12, expert_feed_forward_length=12,
           expert_shared_count=1, expert_gating_func=SIGMOID, expert_weights_scale=1.0, expert_weights_norm=True),
    Family("granitemoeshared", gguf.MODEL_ARCH.GRANITE_MOE, reordered=True, vocab_size=72, rope_dimension_count=8,
           attention_scale=0.3, embedding_scale=4.0, residual_scale=0.5, logit_scale=2.0,
           expert_shared_feed_forward_length=20),
    Family("smollm3", gguf.MODEL_ARCH.SMOLLM3, reordered=True, vocab_size=72, rope_dimension_count=8),
    Family("minimax_m2", gguf.MODEL_ARCH.MINIMAXM2, rope_dimension_count=8, expert_feed_forward_length=12,
           expert_gating_func=SIGMOID),
]


def layer(attention=None, repeat=1, attends=None, experts=None, **block):
    """An entry of the oracle's "layers"."""
    return {"repeat": repeat,
            "blocks": [{"attention": attention or {}} | (attends or {}), {"experts": experts or {}} | block]}


MODELS = [
    Model("llama_types", "llama", {"attn_q.weight": T.Q8_0, "attn_k.weight": T.Q4_0, "attn_v.weight": T.Q5_0,
                                   "attn_output.weight": T.Q4_1, "ffn_gate.weight": T.Q5_1, "ffn_up.weight": T.MXFP4,
                                   "ffn_down.weight": T.F16, "output.weight": T.BF16, "": T.Q8_0}, reordered=True),
    # Rows of the K types are 256 and more long.
    Model("llama_k", "llama", {"attn_q.weight": T.Q4_K, "attn_k.weight": T.Q5_K, "attn_v.weight": T.Q6_K,
                               "attn_output.weight": T.Q8_0, "ffn_gate.weight": T.Q4_K, "ffn_up.weight": T.Q5_K,
                               "": T.Q6_K},
          reordered=True, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
          moe_intermediate_size=256, num_hidden_layers=1, tie_word_embeddings=True, vocab_size=64),
    Model("llama_shards", "llama", {"": T.F16}, reordered=True, seed=3, shards=8, hidden_size=32,
          moe_intermediate_size=40),
    Model("mixtral", "llama", {"ffn_down_exps.weight": T.MXFP4, "": T.Q4_0}, reordered=True, seed=1, num_experts=4,
          num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True),
    Model("qwen3", "qwen3", {"": T.Q8_0}, seed=2, qk_norm="head", tie_word_embeddings=True),
    Model("qwen3moe", "qwen3moe", {"attn_v.weight": T.F32, "": T.Q5_1}, {"expert_feed_forward_length": 32}, seed=2,
          qk_norm="head", norm_topk_prob=True, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32,
          intermediate_size=96),
    Model("qwen2", "qwen2", {"": T.Q5_0}, seed=5, qkv_bias=True, tie_word_embeddings=True),
    Model("phi3", "phi3", {"": T.Q4_1}, seed=6, fused=True, num_key_value_heads=4),
    Model("granite", "granite", {"": T.Q8_0}, {"embedding_scale": 3.0, "residual_scale": 0.5, "attention.scale": 0.125,
                                               "logit_scale": 4.0}, reordered=True, seed=7, tie_word_embeddings=True,
          embedding_factor=3.0, logit_factor=0.25, attention_scale=0.125,
          layers=[layer(residual_factor=0.5, attends={"residual_factor": 0.5}, repeat=2)]),
    Model("olmo2", "olmo2", {"": T.Q8_0}, seed=8, names=NORMS_AFTER, qk_norm="full", num_key_value_heads=4,
          layers=[layer(norm="after", attends={"norm": "after"}, repeat=2)]),
    Model("gemma2", "gemma2", {"token_embd.weight": T.Q8_0, "": T.Q4_0},
          {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "attention.sliding_window": 24}, seed=9,
          names=NORMS_AFTER, hidden_act="gelu_pytorch_tanh", attn_logit_softcapping=5.0, logit_softcap=3.0,
          embedding_factor=8.0, tie_word_embeddings=True,
          layers=[layer({"sliding_window": 24}, norm="both", attends={"norm": "both"}),
                  layer(norm="both", attends={"norm": "both"})]),
    Model("gemma3", "gemma3", {"token_embd.weight": T.Q8_0, "": T.Q5_1}, {"attention.sliding_window": 24}, seed=10,
          names=NORMS_AFTER, hidden_act="gelu_pytorch_tanh", qk_norm="head", embedding_factor=8.0, rope_theta=1e6,
          tie_word_embeddings=True, num_hidden_layers=6, moe_intermediate_size=64,
          layers=[layer({"sliding_window": 24, "rope_theta": 1e4}, norm="both", attends={"norm": "both"}, repeat=5),
                  layer(norm="both", attends={"norm": "both"})]),
    Model("qwen2moe", "qwen2moe", {"": T.Q8_0}, {"expert_feed_forward_length": 32,
                                                 "expert_shared_feed_forward_length": 64}, seed=11, qkv_bias=True,
          num_experts=6, num_experts_per_tok=3, moe_intermediate_size=32, intermediate_size=96, num_shared_experts=2,
          shared_gate=True, hidden_size=32, head_dim=8),
    Model("dots1", "dots1", {"": T.Q8_0},
          {"expert_feed_forward_length": 32, "expert_shared_count": 2, "leading_dense_block_count": 1,
           "expert_weights_scale": 2.5, "expert_weights_norm": True, "expert_gating_func": 2, "expert_group_count": 1,
           "expert_group_used_count": 1}, seed=12, qk_norm="head", hidden_size=32, head_dim=8, num_experts=6,
          num_experts_per_tok=2, moe_intermediate_size=32, intermediate_size=64, num_shared_experts=2,
          routing=lambda z, b: systems.deepseek_v3(z, b, 2, 1, 1, 2.5),
          router={"score": "sigmoid", "selection_bias": True, "norm": "selected", "scale": 2.5},
          layers=[layer(experts={"num_experts": 0, "intermediate_size": 64}), layer()]),
    Model("ernie4_5_moe", "ernie4_5-moe", {"": T.Q8_0},
          {"expert_feed_forward_length": 32, "expert_shared_count": 2, "leading_dense_block_count": 1,
           "interleave_moe_layer_step": 1, "expert_shared_feed_forward_length": 32}, seed=13, rope_interleaved=True,
          rope_theta=500000.0, tie_word_embeddings=True, hidden_size=32, head_dim=8, num_experts=6,
          num_experts_per_tok=2, moe_intermediate_size=32, intermediate_size=64, num_shared_experts=2,
          routing=lambda z, b: systems.ernie(z, b, 2, 1e-12),
          router={"selection_bias": True, "norm": "selected", "norm_min": 1e-12},
          layers=[layer(experts={"num_experts": 0, "intermediate_size": 64}), layer()]),
    # The base is what the published alpha of 1000 makes of 10000, as an f32.
    Model("hunyuan_moe", "hunyuan-moe", {"": T.Q8_0},
          {"expert_shared_feed_forward_length": 32, "expert_feed_forward_length": 32, "expert_shared_count": 1,
           "rope.scaling.type": "none", "rope.scaling.factor": 1.0, "rope.scaling.original_context_length": 262144},
          seed=14, qk_norm="head", qk_norm_after_rope=True, rope_theta=11158840.0, tie_word_embeddings=True,
          hidden_size=32, head_dim=8, num_experts=6, num_experts_per_tok=2, norm_topk_prob=True,
          moe_intermediate_size=32, num_shared_experts=1),
    Model("gpt_oss", "gpt-oss", {"_exps.weight": T.MXFP4, "": T.Q8_0},
          {"expert_feed_forward_length": 32, "attention.sliding_window": 24, "rope.scaling.type": "yarn",
           "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64}, seed=15,
          # Gates beyond the limit of 7, which no key says.
          gains={"ffn_gate_exps.weight": 4, "ffn_up_exps.weight": 4, "ffn_down_exps.weight": 0.1},
          names={"post_attention_layernorm.weight": "post_attention_norm.weight"}, hidden_size=32, head_dim=16,
          num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, sinks=True, qkv_bias=True, output_bias=True,
          mlp_bias=True, swiglu_alpha=1.702, swiglu_limit=7.0, up_offset=1.0, rope_theta=15000.0,
          rope_scaling={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "truncate": False},
          routing=lambda z, b: systems.mixtral(z, 2), router={"score": "selected_softmax", "bias": True},
          layers=[layer({"sliding_window": 24}), layer()]),
    Model("olmoe", "olmoe", {"attn_k.weight": T.BF16, "": T.Q4_1}, seed=4, qk_norm="full", num_experts=4, num_experts_per_tok=2,
          moe_intermediate_size=32),
]


# --- blocks

def write_blocks():
    rng = np.random.default_rng(7)
    entries = []
    for kind in (T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.MXFP4, T.Q4_K, T.Q5_K, T.Q6_K):
        elements, _ = gguf.GGML_QUANT_SIZES[kind]
        array = rng.standard_normal((3, max(elements, 32)))
        data, values = encode(rng, array, kind)
        entries.append({"type": kind.name, "bytes": data.tobytes().hex(), "values": values.tobytes().hex()})
    (OUT / "blocks.json").write_text(json.dumps(entries, indent=1) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    names = sys.argv[1:]
    if not names:
        write_blocks()
    for model in MODELS + FAMILIES:
        if not names or model.name in names:
            model.write()


if __name__ == "__main__":
    main()
