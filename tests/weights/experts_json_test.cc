// The keys of experts and routers in our own dialect of config.json.
#include "weights/experts_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "temp_folder.h"
#include "weights/config_json.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json ours() {
  return {{"model_type", "foe"},           {"vocab_size", 40},           {"hidden_size", 16},
          {"num_hidden_layers", 2},        {"num_attention_heads", 4},   {"num_key_value_heads", 2},
          {"max_position_embeddings", 64}, {"rms_norm_eps", 1e-5},       {"num_experts", 8},
          {"num_experts_per_tok", 4},      {"moe_intermediate_size", 12}};
}

ModelConfig parse_experts(const json& more) {
  json root = ours();
  root.update(more);
  return parse_model_config(root.dump(), "config.json");
}

std::string refusal_of_experts(const json& more) {
  return error_of([&] { parse_experts(more); });
}

TEST(ExpertsJson, DefaultsWrittenOutAreTheDefaults) {
  EXPECT_EQ(parse_experts({{"router",
                            {{"score", "softmax"},
                             {"bias", false},
                             {"selection_bias", false},
                             {"n_group", 1},
                             {"topk_group", 1},
                             {"group_score", "max"},
                             {"top_p", 1.0},
                             {"norm", "none"},
                             {"norm_min", 0.0},
                             {"scale", 1.0}}},
                           {"num_shared_experts", 0},
                           {"shared_intermediate_size", 0},
                           {"shared_gate", false},
                           {"constant_experts", 0},
                           {"copy_experts", 0},
                           {"zero_experts", 0},
                           {"expert_storage", "own"},
                           {"experts_of_layer", nullptr},
                           {"mlp_bias", false},
                           {"swiglu_alpha", 1.0},
                           {"swiglu_limit", 0.0},
                           {"up_offset", 0.0}}),
            parse_experts(json::object()));
}

TEST(ExpertsJson, WritesWhatItReads) {
  const json configs[] = {
      json::object(),
      {{"router",
        {{"score", "sigmoid"},
         {"selection_bias", true},
         {"n_group", 4},
         {"topk_group", 2},
         {"group_score", "top2_sum"},
         {"norm", "selected"},
         {"scale", 2.5}}},
       {"num_shared_experts", 2},
       {"shared_gate", true}},
      {{"router", {{"top_p", 0.5}}}},
      {{"router", {{"bias", true}}},
       {"mlp_bias", true},
       {"swiglu_alpha", 1.702},
       {"swiglu_limit", 7.0},
       {"up_offset", 1.0}},
      {{"router", {{"norm", "computing"}}}, {"zero_experts", 8}},
      {{"router", {{"score", "selected_softmax"}}}, {"constant_experts", 2}, {"copy_experts", 1}},
      {{"router", {{"score", "one"}}}, {"expert_storage", "slices"}},
      {{"qk_norm", "full"}, {"head_dim", 4}, {"num_shared_experts", 1}},  // else OLMoE's
      {{"num_shared_experts", 3}, {"shared_intermediate_size", 7}},
      {{"norm_topk_prob", true}, {"router", {{"norm_min", 1e-12}}}},
      {{"qk_norm", "head"}, {"qk_norm_after_rope", true}},
  };
  for (const json& more : configs) {
    const ModelConfig config = parse_experts(more);
    EXPECT_EQ(parse_model_config(model_config_json(config), "written"), config) << more;
  }
  const ExpertsConfig e = parse_experts(configs[1]).experts(1);
  EXPECT_EQ(*e.router, (RouterConfig{.score = RouterScore::kSigmoid,
                                     .selection_bias = true,
                                     .groups = 4,
                                     .top_groups = 2,
                                     .group_score = GroupScore::kTopTwo,
                                     .norm = RouterNorm::kSelected,
                                     .scale = 2.5}));
  EXPECT_EQ(e.shared, 2);
  EXPECT_TRUE(e.shared_gate);
}

TEST(ExpertsJson, RefusesWrongTypesRangesAndCombinations) {
  const std::pair<json, const char*> cases[] = {
      {{{"router", 3}}, "router: expected an object, got 3"},
      {{{"router", {{"scores", "softmax"}}}}, "router: expected no key but score, selection_bias, across_groups"},
      {{{"router", {{"score", "tanh"}}}},
       R"(router.score: expected "softmax" or "sigmoid" or "selected_softmax" or "one", got "tanh")"},
      {{{"router", {{"selection_bias", 1}}}}, "router.selection_bias: expected true or false, got 1"},
      {{{"router", {{"n_group", "4"}}}}, "router.n_group: expected an integer"},
      {{{"router", {{"n_group", 3}}}}, "router.n_group: expected a divisor of the number of experts"},
      {{{"router", {{"n_group", 0}}}}, "router.n_group: expected a divisor"},
      {{{"router", {{"n_group", 4}, {"topk_group", 5}}}},
       "router.topk_group: expected an integer from 1 to n_group = 4, got 5"},
      {{{"router", {{"n_group", 4}, {"topk_group", 1}}}},
       "router.topk_group: expected groups with at least num_experts_per_tok = 4 experts, got 1 of 2 each"},
      {{{"router", {{"n_group", 8}, {"topk_group", 4}, {"group_score", "top2_sum"}}}},
       R"(router.group_score: expected "max" for groups of one expert, got "top2_sum")"},
      {{{"expert_groups", 2}, {"router", {{"n_group", 4}, {"topk_group", 3}}}},
       "router.n_group: expected it and topk_group to be multiples of expert_groups = 2, got 4 and 3"},
      {{{"router", {{"group_score", "mean"}}}}, R"(router.group_score: expected "max" or "top2_sum", got "mean")"},
      {{{"router", {{"top_p", 0}}}}, "router.top_p: expected a number above 0 and at most 1, got 0"},
      {{{"router", {{"top_p", 1.5}}}}, "router.top_p: expected a number above 0 and at most 1, got 1.5"},
      {{{"router", {{"top_p", 0.5}, {"score", "sigmoid"}}}}, R"(router.top_p: expected 1 with the score "sigmoid")"},
      {{{"router", {{"norm", "all"}}}}, R"(router.norm: expected "none" or "selected" or "computing", got "all")"},
      {{{"router", {{"norm", "selected"}, {"score", "one"}}}},
       R"(router.norm: expected "none" with the score "one", got "selected")"},
      {{{"norm_topk_prob", true}, {"router", {{"norm", "none"}}}},
       R"(router.norm: expected "selected" with norm_topk_prob = true, got "none")"},
      {{{"router", {{"norm", "selected"}, {"norm_min", -1}}}},
       "router.norm_min: expected a finite number of at least 0, got -1"},
      {{{"router", {{"norm_min", 0.1}}}}, R"(router.norm_min: expected 0 with the norm "none", got 0.1)"},
      {{{"router", {{"scale", 0}}}}, "router.scale: expected a finite number above 0, got 0"},
      {{{"router", {{"scale", "2"}}}}, "router.scale: expected a number, got \"2\""},
      {{{"num_experts", 0}, {"router", {{"scale", 2}}}}, "router: expected none in a model without experts"},
      {{{"num_experts", 0}, {"num_shared_experts", 1}},
       "router: expected a router, or no key of experts but the width"},
      {{{"num_shared_experts", -1}}, "num_shared_experts: expected an integer from 0 to 16384, got -1"},
      {{{"num_shared_experts", 20000}}, "num_shared_experts: expected an integer from 0 to 16384, got 20000"},
      {{{"expert_groups", 2}, {"num_shared_experts", 3}},
       "expert_groups: expected a divisor of num_shared_experts = 3, got 2"},
      {{{"expert_groups", 2}, {"zero_experts", 3}}, "expert_groups: expected a divisor of zero_experts = 3, got 2"},
      {{{"shared_intermediate_size", 8}}, "shared_intermediate_size: expected 0 without shared experts, got 8"},
      {{{"num_shared_experts", 1}, {"shared_intermediate_size", -8}},
       "shared_intermediate_size: expected an integer from 0 to 262144, got -8"},
      {{{"qk_norm_after_rope", true}}, "qk_norm_after_rope: expected false without a QK norm (qk_norm none), got true"},
      {{{"shared_gate", true}}, "shared_gate: expected false without shared experts, got true"},
      {{{"copy_experts", 1.5}}, "copy_experts: expected an integer"},
      {{{"constant_experts", true}}, "constant_experts: expected an integer"},
      {{{"expert_storage", "disk"}}, R"(expert_storage: expected "own" or "slices", got "disk")"},
      {{{"experts_of_layer", 0}}, "experts_of_layer: expected null or the index of a layer below layer 0, got 0"},
      {{{"num_experts_per_tok", 9}}, "num_experts_per_tok: expected an integer from 1 to 8, got 9"},
  };
  for (const auto& [more, message] : cases) EXPECT_THAT(refusal_of_experts(more), HasSubstr(message)) << more;
  EXPECT_EQ(refusal_of_experts({{"num_experts_per_tok", 9}, {"zero_experts", 1}}), "no error");
}

}  // namespace
}  // namespace foe
