// Models whose layers differ, and whose blocks do more than read norm(r) and add to it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/change_config.h"
#include "core/configs.h"
#include "model/random_model.h"

namespace foe {

inline ExpertsConfig experts_of(int count, int per_token, int width) {
  return {.count = count, .per_token = per_token, .width = width, .router = RouterConfig{}};
}

inline std::vector<NamedConfig> block_configs() {
  std::vector<NamedConfig> all;
  const auto add = [&](std::string name, ModelConfig c, auto&& change) {
    change(c);
    all.push_back({std::move(name), std::move(c)});
  };
  const auto each_block = [](ModelConfig& c, auto&& change) {
    for (LayerConfig& layer : c.layers)
      for (BlockConfig& block : layer.blocks) change(block);
  };
  add("dense_first", small_config(), [](ModelConfig& c) { c.experts(0) = dense_experts(300); });
  add("dense_last", small_config(), [](ModelConfig& c) { c.experts(2) = dense_experts(40); });
  add("experts_by_layer", small_config(), [](ModelConfig& c) {
    c.experts(0) = experts_of(5, 2, 40);
    c.experts(1).shared = 3;
    c.experts(1).router->score = RouterScore::kSigmoid;
    c.experts(2).zero = 4;
    c.experts(2).constant = 2;
  });
  add("moge_dense_between", small_config(), [](ModelConfig& c) {
    c.expert_groups = 4;
    c.experts(1) = dense_experts(130);
    c.experts(2).count = 12;
  });
  add("foe2_experts_by_layer", small_federated(2), [](ModelConfig& c) {
    c.experts(0) = experts_of(6, 2, 40);
    c.experts(1).copy = 2;
    c.experts(2).per_token = 8;
  });
  add("parallel", small_config(), [](ModelConfig& c) {
    for (const int l : {0, 2}) c.layers[l].blocks[1].parallel = true;
  });
  add("parallel_shared_norm", small_config(), [](ModelConfig& c) {
    make_dense(c);
    for (LayerConfig& layer : c.layers) layer.blocks[1].parallel = true, layer.blocks[1].norm = BlockNorm::kShared;
  });
  add("foe4_parallel", small_federated(4), [](ModelConfig& c) {
    c.group_sync = GroupSync::kMean;
    for (LayerConfig& layer : c.layers) layer.blocks[1].parallel = true;
  });
  add("foe2_delayed", small_federated(2), [](ModelConfig& c) {
    for (const int l : {1, 2}) c.layers[l].blocks[0].parallel = true;
    set(c, &RouterConfig::across_groups, true);
    set(c, &ExpertsConfig::per_token, 5);
  });
  add("foe4_every_second", small_federated(4), [](ModelConfig& c) {
    c.group_sync_every = 2;
    c.layers[1].blocks[1].norm = BlockNorm::kBoth;
    set(c, &ExpertsConfig::shared, 4);
    set(c, &ExpertsConfig::copy, 4);
  });
  add("foe2_every_third", small_federated(2), [](ModelConfig& c) {
    c.group_sync_every = 3;
    c.group_sync = GroupSync::kMean;
    c.layers[1].blocks[1].norm = BlockNorm::kAfter;
    c.layers[2].blocks[1].residual_factor = 0.6;
    set(c, &AttentionConfig::output_bias, true);
  });
  const auto factors = [&](ModelConfig& c) {
    double factor = 0.5;
    each_block(c, [&](BlockConfig& block) { block.residual_factor = factor += 0.1; });
    c.embedding_factor = 3;
    c.logit_factor = 0.7;
    c.logit_softcap = 2;
  };
  add("factors", small_config(), factors);
  add("foe4_factors", small_federated(4), factors);
  // OLMo 2 has norms after blocks, Gemma 2 both before and after.
  add("norms_after", small_config(), [&](ModelConfig& c) {
    each_block(c, [](BlockConfig& block) { block.norm = BlockNorm::kAfter; });
    set(c, &AttentionConfig::qk_norm, QkNorm::kFull);
  });
  add("norms_both_dense", small_config(), [&](ModelConfig& c) {
    make_dense(c);
    set(c, &ExpertsConfig::width, 300);
    each_block(c, [](BlockConfig& block) { block.norm = BlockNorm::kBoth; });
  });
  add("norms_by_layer", small_config(), [](ModelConfig& c) {
    set(c, &ExpertsConfig::copy, 2);
    c.layers[0].blocks[0].norm = c.layers[1].blocks[1].norm = BlockNorm::kAfter;
    c.layers[2].blocks[0].norm = c.layers[2].blocks[1].norm = BlockNorm::kBoth;
    c.layers[2].blocks[1].parallel = true;
    c.layers[2].blocks[0].residual_factor = 0.7;
  });
  add("foe4_norms_after_experts", small_federated(4), [](ModelConfig& c) {
    set(c, &ExpertsConfig::copy, 4);
    c.layers[0].blocks[1].norm = c.layers[2].blocks[1].norm = BlockNorm::kAfter;
    c.layers[1].blocks[1].norm = BlockNorm::kBoth;
    c.layers[1].blocks[1].residual_factor = 0.7;
  });
  add("activations", small_config(), [](ModelConfig& c) {
    c.experts(0).activation = Activation::kGeluTanh;
    c.experts(1).activation = Activation::kRelu2;
    c.experts(1).shared = 1;
    c.experts(2) = dense_experts(70, Activation::kRelu2);
  });
  // Shared experts of another width than the routed ones.
  add("shared_widths", small_config(), [](ModelConfig& c) {
    c.experts(0).shared = 1, c.experts(0).shared_width = 70, c.experts(0).shared_gate = true;
    c.experts(1).shared = 3, c.experts(1).shared_width = 9;
    c.experts(2) = dense_experts(130);
  });
  add("foe2_shared_widths", small_federated(2), [](ModelConfig& c) {
    set(c, &ExpertsConfig::shared, 4);
    set(c, &ExpertsConfig::shared_width, 50);
  });
  // All of gpt-oss, with a limit that clips; and networks with biases, of which a dense layer has three blocks.
  add("gpt_oss", small_config(), [](ModelConfig& c) {
    for_each_attention(c, [](AttentionConfig& a) { a.sinks = a.qkv_bias = a.output_bias = true; });
    c.attention(0).window = c.attention(2).window = 30;
    for_each_experts(c, [](ExpertsConfig& e) {
      e.gate = {1.702, 1, 1};
      e.bias = true;
      e.router = {.score = RouterScore::kSelectedSoftmax, .bias = true};
    });
  });
  add("network_biases_dense", small_config(), [](ModelConfig& c) {
    for_each_experts(c, [](ExpertsConfig& e) { e.bias = true; });
    c.experts(1) = dense_experts(300, Activation::kGeluTanh);
    c.experts(1).bias = true;
    c.experts(1).gate.limit = 1;
    c.experts(2).of_layer = 0;
  });
  add("foe2_network_biases", small_federated(2), [](ModelConfig& c) {
    for_each_experts(c, [](ExpertsConfig& e) { e.bias = e.router->bias = true, e.gate.up_offset = 0.5; });
  });
  return all;
}

}  // namespace foe
