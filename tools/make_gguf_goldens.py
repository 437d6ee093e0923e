#!/usr/bin/env python3
"""Makes the small GGUF files in tests/golden/gguf, and the logits that the float64 oracle gives for them.

    tools/make_gguf_goldens.py [NAME ...]     # of all models without names; and blocks.json

Weights are random; their types, the names of tensors and keys, and the order of rows are those of llama.cpp's converter.
A file of expected logits has `tokens` (I64 [T]) and `logits` (F32 [T, V]): tests/oracle/foe_oracle.py computes them from
the weights as the PyPI package `gguf` dequantises them. That package has no quantiser of the K types: here their blocks
are random. blocks.json has random blocks of each type, and what that package makes of them.
Needs numpy and gguf (0.19).
"""

import json
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
                 **config):
        self.name, self.architecture, self.types, self.keys = name, architecture, types, keys or {}
        self.reordered, self.seed, self.shards, self.fused = reordered, seed, shards, fused
        shape = dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=96,
                     num_experts=0, num_experts_per_tok=0, moe_intermediate_size=96, rms_norm_eps=1e-5,
                     max_position_embeddings=128)
        self.width = config.pop("intermediate_size", None)
        self.config = random_model.make_config(**(shape | config))
        self.names = NAMES | (names or {})

    def type_of(self, name, columns):
        kind = next((kind for end, kind in self.types.items() if name.endswith(end)), self.types[""])
        return T.F32 if columns is None else kind

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
            kind = self.type_of(file_name, None if array.ndim == 1 or "ffn_gate_inp." in file_name else array.shape[-1])
            data, values = encode(rng, array, kind)
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
        result = foe_oracle.forward(self.config, weights, tokens)
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
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "self_attn.sinks": "attn_sinks.weight",
} | {f"self_attn.{ours}.{end}": f"attn_{theirs}.{end}" for end in ("weight", "bias") for ours, theirs in
     {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "output", "q_norm": "q_norm", "k_norm": "k_norm"}.items()
} | {f"mlp.{ours}{part}_proj.weight": f"ffn_{part}{theirs}.weight" for part in ("gate", "up", "down")
     for ours, theirs in {"": "", "experts.": "_exps", "shared_experts.": "_shexp"}.items()}
# Gemma 2 and OLMo 2 have norms after blocks.
NORMS_AFTER = {"post_attention_layernorm.weight": "post_attention_norm.weight",
               "pre_feedforward_layernorm.weight": "ffn_norm.weight",
               "post_feedforward_layernorm.weight": "post_ffw_norm.weight"}



def layer(attention=None, repeat=1, attends=None, **block):
    """An entry of the oracle's "layers"."""
    return {"repeat": repeat, "blocks": [{"attention": attention or {}} | (attends or {}), {"experts": {}} | block]}


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
    for model in MODELS:
        if not names or model.name in names:
            model.write()


if __name__ == "__main__":
    main()
