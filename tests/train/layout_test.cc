#include "train/layout.h"

#include <cmath>
#include <functional>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tiny_model.h"

namespace foe::train {
namespace {

// What only inference computes is refused by the name of its key.
TEST(Layout, RefusesRoutersAndExpertsThatAreNotTrained) {
  const std::pair<std::function<void(ExpertsConfig&)>, const char*> cases[] = {
      {[](auto& e) { e.router->score = RouterScore::kSigmoid; }, "router.score: training expects softmax, got sigmoid"},
      {[](auto& e) { e.router->selection_bias = true; }, "router.selection_bias: training expects false, got true"},
      {[](auto& e) { e.router->groups = 4, e.router->top_groups = 2; }, "router.topk_group: training expects 4, got 2"},
      {[](auto& e) { e.router->top_p = 0.5; }, "router.top_p: training expects 1, got 0.5"},
      {[](auto& e) { e.router->norm = RouterNorm::kSelected, e.router->norm_min = 0.5; },
       "router.norm_min: training expects 0, got 0.5"},
      {[](auto& e) { e.router->scale = 2; }, "router.scale: training expects 1, got 2"},
      {[](auto& e) { e.shared = 1; }, "num_shared_experts: training expects 0, got 1"},
      {[](auto& e) { e.constant = 1; }, "constant_experts: training expects 0, got 1"},
      {[](auto& e) { e.copy = 1; }, "copy_experts: training expects 0, got 1"},
      {[](auto& e) { e.zero = 1; }, "zero_experts: training expects 0, got 1"},
      {[](auto& e) { e.storage = ExpertStorage::kSlices; }, "expert_storage: training expects own, got slices"},
  };
  for (const auto& [change, message] : cases) {
    ModelConfig config = tiny_config(tiny_cases()[0]);
    for_each_experts(config, change);
    EXPECT_THAT([&] { Layout layout(config); }, testing::ThrowsMessage<Error>(message));
  }
  ModelConfig config = tiny_config(tiny_cases()[0]);
  config.experts(1).of_layer = 0;
  EXPECT_THAT([&] { Layout layout(config); },
              testing::ThrowsMessage<Error>("experts_of_layer: training expects -1, got 0"));
}

TEST(Layout, RefusesAttentionThatIsNotTrained) {
  const std::pair<std::function<void(AttentionConfig&)>, const char*> cases[] = {
      {[](auto& a) { a.value_width = 2; }, "v_head_dim: training expects 4, got 2"},
      {[](auto& a) { a.qkv_bias = true; }, "qkv_bias: training expects false, got true"},
      {[](auto& a) { a.output_bias = true; }, "output_bias: training expects false, got true"},
      {[](auto& a) { a.qk_norm = QkNorm::kHead, a.norm_after_rope = true; },
       "qk_norm_after_rope: training expects false, got true"},
      {[](auto& a) { a.window = 8; }, "sliding_window: training expects 0, got 8"},
      {[](auto& a) { a.sinks = true; }, "sinks: training expects false, got true"},
      {[](auto& a) { a.rotary_share = 0.5; }, "partial_rotary_factor: training expects 1, got 0.5"},
      {[](auto& a) { a.interleaved = true; }, "rope_interleaved: training expects false, got true"},
      {[](auto& a) { a.scale = 0.25; }, "attention_scale: training expects 0, got 0.25"},
      {[](auto& a) { a.softcap = 20; }, "attn_logit_softcapping: training expects 0, got 20"},
  };
  for (const auto& [change, message] : cases) {
    ModelConfig config = tiny_config(tiny_cases()[0]);
    for_each_attention(config, change);
    EXPECT_THAT([&] { Layout layout(config); }, testing::ThrowsMessage<Error>(message));
  }
  const std::pair<std::function<void(AttentionConfig&)>, const char*> of_one_layer[] = {
      {[](auto& a) { a.rope_theta = 8; }, "layers[1].rope_theta: training expects 10000, got 8"},
      {[](auto& a) { a.rope_factor = 8; }, "layers[1].rope_scaling.factor: training expects 2, got 8"},
      {[](auto& a) { a.window = 8; }, "sliding_window: training expects 0, got 8"},
  };
  for (const auto& [change, message] : of_one_layer) {
    ModelConfig config = tiny_config(tiny_cases()[0]);
    change(config.attention(1));
    EXPECT_THAT([&] { Layout layout(config); }, testing::ThrowsMessage<Error>(message));
  }
}

TEST(Layout, RefusesBlocksAndLayersThatAreNotTrained) {
  const std::pair<std::function<void(ModelConfig&)>, const char*> cases[] = {
      {[](auto& c) { c.layers[1].blocks[1].norm = BlockNorm::kAfter; }, "norm: training expects before, got after"},
      {[](auto& c) {
         c.group_sync_every = 2, c.residual = Residual::kFederated;
         for_each_experts(c, [](ExpertsConfig& e) { e.router->across_groups = true; });
       },
       "router.across_groups: training expects false, got true"},
      {[](auto& c) { c.experts(1).activation = Activation::kRelu2; }, "hidden_act: training expects silu, got relu2"},
      {[](auto& c) { c.experts(1).gate.limit = 7; }, "swiglu_limit: training expects 0, got 7"},
      {[](auto& c) { c.experts(1).bias = true; }, "mlp_bias: training expects false, got true"},
      {[](auto& c) { c.experts(1).router->bias = true; }, "router.bias: training expects false, got true"},
      {[](auto& c) { c.experts(1) = dense_experts(16); },
       "num_experts: training expects at least 1 expert in every layer, got a dense layer"},
      {[](auto& c) { c.experts(1).per_token = 1; },
       "layers: training expects layers that differ by residual_factor and parallel alone, got a layer 1 unlike the "
       "first"},
      {[](auto& c) { c.embedding_factor = 2; }, "embedding_factor: training expects 1, got 2"},
      {[](auto& c) { c.logit_factor = 2; }, "logit_factor: training expects 1, got 2"},
      {[](auto& c) { c.logit_softcap = 2; }, "logit_softcap: training expects 0, got 2"},
  };
  for (const auto& [change, message] : cases) {
    ModelConfig config = tiny_config(tiny_cases()[0]);
    change(config);
    EXPECT_THAT([&] { Layout layout(config); }, testing::ThrowsMessage<Error>(message));
  }
}

// Written out, the defaults are what is trained.
TEST(Layout, TakesTheDefaultsOfAttention) {
  ModelConfig config = tiny_config(tiny_cases()[0]);
  for_each_attention(config, [](AttentionConfig& a) {
    a.value_width = a.key_width;
    a.scale = 1 / std::sqrt(a.key_width);
  });
  EXPECT_NO_THROW(Layout layout(config));
}

// A deviation of 0 is one, too: only norm weights start as ones.
TEST(Layout, MatricesOfScaleZeroStartAtZero) {
  const Layout layout(tiny_config(tiny_cases()[0]), {.output = 0, .embedding = 0});
  std::vector<float> params(layout.size);
  initialise(layout, 7, params.data());
  const std::size_t D = layout.dims.hidden;
  for (const std::size_t zero : {layout.embedding, layout.layers[0].o, layout.layers[0].down[0]})
    EXPECT_THAT(std::vector<float>(&params[zero], &params[zero] + D), testing::Each(0.0f));
  EXPECT_THAT(std::vector<float>(&params[layout.final_norm], &params[layout.final_norm] + D), testing::Each(1.0f));
  EXPECT_THAT(std::vector<float>(&params[layout.layers[0].q], &params[layout.layers[0].q] + D),
              testing::Contains(testing::Ne(0.0f)));
}

}  // namespace
}  // namespace foe::train
