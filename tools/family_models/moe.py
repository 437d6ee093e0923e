"""Models with a softmax router alone."""

import transformers as t
from golden_config import maker

SHAPE = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, vocab_size=72, max_position_embeddings=8192,
             bos_token_id=0, eos_token_id=1, pad_token_id=None, num_experts_per_tok=2)
new = maker(SHAPE)

MODELS = {
    "olmoe": new(t.OlmoeConfig, num_hidden_layers=2, intermediate_size=12, num_experts=8, norm_topk_prob=True),
    "mixtral": new(t.MixtralConfig, long=True, num_hidden_layers=2, intermediate_size=24, num_local_experts=4,
                   sliding_window=48),
    # Layers 0 and 2 are dense because of the step, layer 3 because of the list.
    "qwen3_moe": new(
        t.Qwen3MoeConfig, num_hidden_layers=4, intermediate_size=40, moe_intermediate_size=16, head_dim=12, num_experts=8,
        norm_topk_prob=True, decoder_sparse_step=2, mlp_only_layers=[3]),
}
