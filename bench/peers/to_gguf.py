"""Writes a GGUF file, for llama.cpp, of a model folder with random weights: the same tensors, under that format's names.

    to_gguf.py FOLDER OUT.gguf --type F32|F16|Q8_0|Q4_0
    to_gguf.py MODEL.gguf --parts    prints the file's bytes by part of the model, as JSON

Matrices get the type, but the router, which stays F32 as norms do. Experts of a layer are stacked into one tensor. There is no
tokenizer in the file: it is for token ids.
"""

import argparse
import json
import math
from pathlib import Path

import gguf
import numpy as np

from report import part_of
from tensor_files import TensorFile

OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp"}
EXPERTS = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}
# What a family implies, as (QK norm, renormalised weights).
FAMILIES = {("full", False): "olmoe", ("head", True): "qwen3moe"}


def family_of(config: dict) -> str:
    norm = "full" if config["model_type"] == "olmoe" else config.get("qk_norm", "none")
    family = FAMILIES.get((norm, config["norm_topk_prob"]))
    if family is None or config.get("expert_groups", 1) != 1 or config["tie_word_embeddings"] or config.get("rope_scaling"):
        raise SystemExit("to_gguf: expected an ordinary MoE as OLMoE or Qwen3-MoE, untied and with plain rope, found"
                         f" {json.dumps(config)}")
    return family


def sources_of(config: dict) -> dict[str, list[str]]:
    """Returns for each tensor of the GGUF file the tensor of the folder that it is, or those that it stacks."""
    sources = {f"{gguf_name}.weight": [f"{name}.weight"] for name, gguf_name in OUTER.items()}
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"model.layers.{layer}", f"blk.{layer}"
        sources |= {f"{theirs}.{gguf_name}.weight": [f"{ours}.{name}.weight"] for name, gguf_name in LAYER.items()}
        for name, gguf_name in EXPERTS.items():
            sources[f"{theirs}.{gguf_name}.weight"] = [f"{ours}.mlp.experts.{expert}.{name}.weight"
                                                       for expert in range(config["num_experts"])]
    return sources


def describe(writer: gguf.GGUFWriter, config: dict, file_type: gguf.LlamaFileType) -> None:
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(width)
    writer.add_expert_feed_forward_length(width)
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def type_in_file(name: str, rank: int, matrices: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType.F32 if rank == 1 or part_of(name) == "router" else matrices


def write(folder: Path, out: Path, type_name: str) -> None:
    """One tensor at a time is in memory."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    matrices = gguf.GGMLQuantizationType[type_name]
    file_type = gguf.LlamaFileType["ALL_F32" if type_name == "F32" else f"MOSTLY_{type_name}"]
    weights = TensorFile(folder / "model.safetensors")
    writer = gguf.GGUFWriter(out, family_of(config))
    describe(writer, config, file_type)
    tensors = []
    for name, sources in sources_of(config).items():
        shape = weights.shape(sources[0])
        kind = type_in_file(sources[0], len(shape), matrices)
        if len(sources) > 1:
            shape = [len(sources), *shape]
        size = math.prod(gguf.quant_shape_to_byte_shape(shape, kind))
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        tensors.append((sources, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for sources, kind in tensors:
        writer.write_tensor_data(np.stack([gguf.quantize(weights.read(source), kind) for source in sources]))
    writer.close()


def part_in_file(name: str) -> str:
    """Returns the part of a model that a tensor of any GGUF file belongs to, in the words of report.part_of."""
    if "norm" in name:
        return "norms"
    if name.startswith(("token_embd", "output.")):
        return "embedding" if name.startswith("token_embd") else "head"
    if "ffn_gate_inp" in name:
        return "router"
    return "experts" if "ffn_" in name and "shexp" not in name else "attention"


def parts_of(model: Path) -> dict[str, int]:
    parts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(model).tensors:
        part = part_in_file(tensor.name)
        parts[part] = parts.get(part, 0) + int(tensor.n_bytes)
    return parts if "head" in parts else parts | {"head": parts["embedding"], "embedding": 0}  # one matrix is both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder; with --parts a GGUF file")
    parser.add_argument("out", type=Path, nargs="?", help="GGUF file to write; not with --parts")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--type", choices=("F32", "F16", "Q8_0", "Q4_0"), help="type of the matrices")
    kind.add_argument("--parts", action="store_true", help="print the bytes of each part of MODEL.gguf")
    flags = parser.parse_args()
    if flags.parts:
        print(json.dumps(parts_of(flags.model)))
    elif flags.out:
        write(flags.model, flags.out, flags.type)
    else:
        parser.error("expected OUT.gguf after the folder, got none")


if __name__ == "__main__":
    main()
