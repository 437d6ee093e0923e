"""Models whose layers have one feed-forward network each."""

import transformers as t
from golden_config import maker

SHAPE = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=72, max_position_embeddings=8192, bos_token_id=0, eos_token_id=1, pad_token_id=None)
new = maker(SHAPE)


def linear(size):
    return [1 + 0.37 * i for i in range(size)]


MODELS = {
    "llama": new(t.LlamaConfig, attention_bias=True, head_dim=12),
    "llama3": new(t.LlamaConfig, long=True, hidden_size=36, num_attention_heads=3, num_key_value_heads=1, head_dim=16,
                  tie_word_embeddings=True, rope_parameters={
                      "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                      "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}),
    "llama_yarn": new(t.LlamaConfig, long=True, rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 512,
        "beta_fast": 24.0, "beta_slow": 2.0}),
    "llama_yarn_mscale": new(t.LlamaConfig, rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 64,
        "mscale": 0.8, "mscale_all_dim": 0.4, "truncate": False}),
    "llama_dynamic": new(t.LlamaConfig, long=True, max_position_embeddings=2048, rope_parameters={
        "rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
    "mistral": new(t.MistralConfig, long=True, sliding_window=48, head_dim=10),
    "ministral": new(t.MinistralConfig, long=True, num_hidden_layers=4, sliding_window=200, head_dim=8,
                     layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]),
    "qwen2": new(t.Qwen2Config, num_hidden_layers=3, use_sliding_window=True, sliding_window=40, max_window_layers=1),
    "qwen3": new(t.Qwen3Config, head_dim=16, tie_word_embeddings=True),
    "phi3": new(t.Phi3Config, num_key_value_heads=1, sliding_window=33),
    "phi3_longrope": new(t.Phi3Config, long=True, max_position_embeddings=8192, original_max_position_embeddings=1024,
                         partial_rotary_factor=0.75, hidden_size=64, intermediate_size=24, rope_parameters={
                             "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": linear(6),
                             "long_factor": [3 * f for f in linear(6)]}),
    "olmo2": new(t.Olmo2Config, num_attention_heads=4, num_key_value_heads=4),
    "olmo3": new(t.Olmo3Config, long=True, num_hidden_layers=4, sliding_window=100, rope_parameters={
        "full_attention": {"rope_type": "yarn", "rope_theta": 500000.0, "factor": 8.0, "attention_factor": 1.2,
                           "original_max_position_embeddings": 1024, "beta_fast": 32.0, "beta_slow": 1.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0}}),
    "granite": new(t.GraniteConfig, embedding_multiplier=12.0, logits_scaling=8.0, residual_multiplier=0.22,
                   attention_multiplier=0.0625, attention_bias=True, tie_word_embeddings=True),
    "smollm3": new(t.SmolLM3Config, num_hidden_layers=4, tie_word_embeddings=True),
    "gemma2": new(t.Gemma2Config, long=True, num_hidden_layers=3, head_dim=12, query_pre_attn_scalar=20,
                  sliding_window=64, attn_logit_softcapping=5.0, final_logit_softcapping=20.0),
    "gemma3": new(t.Gemma3TextConfig, long=True, num_hidden_layers=4, head_dim=12, query_pre_attn_scalar=30,
                  num_attention_heads=4, num_key_value_heads=1, sliding_window=64, rope_parameters={
                      "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}},
                  layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]),
}
