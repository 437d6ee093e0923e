#include "weights/tensor_aliases.h"

namespace foe {

const std::vector<TensorAlias>& gguf_aliases() {
  using enum TensorRole;
  static const std::vector<TensorAlias> list = {
      {"token_embd.weight", {kEmbedding}},
      {"output_norm.weight", {kFinalNorm}},
      {"output.weight", {kHead}},
      {"attn_norm.weight", {kAttentionNorm}},
      {"attn_q.weight", {kQProj}},
      {"attn_k.weight", {kKProj}},
      {"attn_v.weight", {kVProj}},
      {"attn_qkv.weight", {kQProj, kKProj, kVProj}},
      {"attn_output.weight", {kOProj}},
      {"attn_q.bias", {kQBias}},
      {"attn_k.bias", {kKBias}},
      {"attn_v.bias", {kVBias}},
      {"attn_qkv.bias", {kQBias, kKBias, kVBias}},
      {"attn_output.bias", {kOBias}},
      {"attn_q_norm.weight", {kQNorm}},
      {"attn_k_norm.weight", {kKNorm}},
      {"attn_sinks.weight", {kSinks}},
      {"post_attention_norm.weight", {kAttentionOutputNorm}},
      {"ffn_norm.weight", {kExpertNorm}},
      {"post_attention_norm.weight", {kExpertNorm}},
      {"post_ffw_norm.weight", {kExpertOutputNorm}},
      {"ffn_gate_inp.weight", {kRouter}},
      {"ffn_gate_inp.bias", {kRouterBias}},
      {"exp_probs_b.bias", {kSelectionBias}},
      {"ffn_gate_inp_shexp.weight", {kSharedGate}},
      {"ffn_gate_exps.weight", {kGateProj}, true},
      {"ffn_up_exps.weight", {kUpProj}, true},
      {"ffn_down_exps.weight", {kDownProj}, true},
      {"ffn_gate_exps.bias", {kGateBias}, true},
      {"ffn_up_exps.bias", {kUpBias}, true},
      {"ffn_down_exps.bias", {kDownBias}, true},
      {"ffn_gate_up_exps.weight", {kGateProj, kUpProj}, true},
      {"ffn_gate.{}.weight", {kGateProj}},  // files of Mixtral from before 2024-04
      {"ffn_up.{}.weight", {kUpProj}},
      {"ffn_down.{}.weight", {kDownProj}},
      {"ffn_gate.weight", {kGateProj}},
      {"ffn_up.weight", {kUpProj}, false, "ffn_gate.weight"},
      {"ffn_up.weight", {kGateProj, kUpProj}},  // Phi-3
      {"ffn_down.weight", {kDownProj}},
      {"ffn_gate_shexp.weight", {kSharedGateProj}},
      {"ffn_up_shexp.weight", {kSharedUpProj}},
      {"ffn_down_shexp.weight", {kSharedDownProj}},
  };
  return list;
}

}  // namespace foe
