"""gpt-oss: with its experts as numbers, and in MXFP4 as it is published."""

import safetensors.torch
import torch
import transformers as t
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

# Few choices of experts in a long text, so that one without near ties is found soon.
SHAPE = dict(hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=12, vocab_size=72, max_position_embeddings=8192, num_local_experts=4, num_experts_per_tok=2,
             sliding_window=100, bos_token_id=0, eos_token_id=1, pad_token_id=None, swiglu_limit=2.0,
             rope_parameters={"rope_type": "yarn", "rope_theta": 15000.0, "factor": 8.0, "truncate": False,
                              "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 512})
LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def new(long=False, mxfp4=False, **more):
    def config():
        made = t.GptOssConfig(**(SHAPE | more))
        made.golden_long = long
        if mxfp4:
            made.golden_prepare, made.golden_save = quantise, save_quantised
        return made
    return config


def to_mxfp4(weight):
    """Returns blocks [E, out, G, 16] and scales [E, out, G] of a weight [E, in, out]: the nearest levels, under the
    smallest power of two with which the largest level is not exceeded by more than a quarter."""
    blocks = weight.transpose(1, 2).unflatten(-1, (-1, 32))
    exponents = torch.ceil(torch.log2(blocks.abs().amax(-1) / 7.5))
    scaled = blocks / torch.exp2(exponents)[..., None]
    codes = (scaled.abs()[..., None] - LEVELS).abs().argmin(-1) + 8 * (scaled < 0)
    low, high = codes[..., 0::2], codes[..., 1::2]
    return (low + 16 * high).to(torch.uint8), (exponents + 127).to(torch.uint8)


def quantise(model):
    """Gives experts weights that MXFP4 has, and keeps their blocks and scales, by name."""
    model.golden_packed = {}
    for layer, block in enumerate(model.model.layers):
        for name in "gate_up_proj", "down_proj":
            weight = getattr(block.mlp.experts, name)
            blocks, scales = to_mxfp4(weight.data)
            weight.data = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
            stem = f"model.layers.{layer}.mlp.experts.{name}"
            model.golden_packed |= {f"{stem}_blocks": blocks, f"{stem}_scales": scales}


def save_quantised(model, folder):
    tensors = {name: tensor for name, tensor in model.state_dict().items()
               if f"{name}_blocks" not in model.golden_packed}
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors | model.golden_packed, folder / "model.safetensors", {"format": "pt"})
    model.config.quantization_config = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                                   "lm_head"]}
    model.config.save_pretrained(folder)


MODELS = {
    "gpt_oss": new(long=True),
    # A matrix of gate and up whose shape does not tell that it is transposed.
    "gpt_oss_square": new(hidden_size=32, intermediate_size=16, num_hidden_layers=4, swiglu_limit=1.0,
                          num_local_experts=8, num_experts_per_tok=3, sliding_window=17,
                          layer_types=["full_attention", "sliding_attention"] * 2),
    "gpt_oss_mxfp4": new(long=True, mxfp4=True, hidden_size=64, intermediate_size=96),
}
