"""Models with routers of their own: sigmoids, selection biases, groups, shared experts, dense layers among sparse ones."""

import transformers as t
from golden_config import maker

SHAPE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=72,
             max_position_embeddings=8192, bos_token_id=0, eos_token_id=1, pad_token_id=None)
new = maker(SHAPE)


ALPHA = {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0}

MODELS = {
    "qwen2_moe": new(t.Qwen2MoeConfig, intermediate_size=40, moe_intermediate_size=12, shared_expert_intermediate_size=28,
                     num_experts=6, num_experts_per_tok=3, mlp_only_layers=[1], use_sliding_window=True,
                     sliding_window=40, max_window_layers=3),
    "glm4_moe": new(t.Glm4MoeConfig, intermediate_size=40, moe_intermediate_size=12, n_routed_experts=8,
                    num_experts_per_tok=3, n_group=4, topk_group=2, head_dim=12, use_qk_norm=True, attention_bias=True,
                    first_k_dense_replace=1, routed_scaling_factor=2.5, num_mtp_layers=0),
    "glm4_moe_air": new(t.Glm4MoeConfig, intermediate_size=40, moe_intermediate_size=12, n_routed_experts=8,
                        num_experts_per_tok=3, head_dim=16, n_shared_experts=2, norm_topk_prob=False,
                        first_k_dense_replace=2, tie_word_embeddings=True, num_mtp_layers=0),
    "dots1": new(t.Dots1Config, intermediate_size=40, moe_intermediate_size=12, n_routed_experts=6,
                 num_experts_per_tok=2, n_shared_experts=2, first_k_dense_replace=1, norm_topk_prob=True,
                 routed_scaling_factor=2.5, sliding_window=40, max_window_layers=2),
    "solar_open": new(t.SolarOpenConfig, moe_intermediate_size=12, n_routed_experts=6, num_experts_per_tok=2,
                      head_dim=12, attention_bias=True, rope_parameters={
                          "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 2.0,
                          "original_max_position_embeddings": 64, "partial_rotary_factor": 1.0}),
    "minimax_m2": new(t.MiniMaxM2Config, intermediate_size=12, num_local_experts=6, num_experts_per_tok=2, head_dim=16,
                      rotary_dim=8),
    "ernie4_5": new(t.Ernie4_5Config, intermediate_size=40, head_dim=12),
    "ernie4_5_moe": new(t.Ernie4_5_MoeConfig, num_hidden_layers=4, intermediate_size=40, moe_intermediate_size=12,
                        moe_num_experts=6, moe_k=2, moe_layer_end_index=2),
    "hunyuan_v1_dense": new(t.HunYuanDenseV1Config, intermediate_size=40, head_dim=12, attention_bias=True,
                            rope_parameters=ALPHA),
    "hunyuan_v1_moe": new(t.HunYuanMoEV1Config, intermediate_size=12, num_experts=6, moe_topk=[3, 2, 1], head_dim=12,
                          tie_word_embeddings=True, rope_parameters=ALPHA),
    "granitemoe": new(t.GraniteMoeConfig, intermediate_size=12, num_local_experts=6, num_experts_per_tok=3,
                      embedding_multiplier=12.0, logits_scaling=6.0, residual_multiplier=0.22,
                      attention_multiplier=0.0625, attention_bias=True, tie_word_embeddings=True),
    "granitemoeshared": new(t.GraniteMoeSharedConfig, intermediate_size=12, num_local_experts=6, num_experts_per_tok=3,
                            shared_intermediate_size=20, embedding_multiplier=4.0, logits_scaling=2.0,
                            residual_multiplier=0.5, attention_multiplier=0.3),
    "flex_olmo": new(t.FlexOlmoConfig, intermediate_size=12, num_experts=7, num_experts_per_tok=3),
}
