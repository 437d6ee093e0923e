// The key "layers" of config.json, and our keys of attention and blocks.
#include "weights/layers_json.h"

#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "core/configs.h"
#include "weights/attention_json.h"
#include "weights/config_json.h"
#include "weights/experts_json.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// A model with 16 experts and, but for num_hidden_layers, what `more` says.
json model(const json& more) {
  json root = json::parse(model_config_json(small_config()));
  root.erase("num_hidden_layers");
  root.merge_patch(more);
  return root;
}

ModelConfig parse_layers(const json& more) {
  return parse_model_config(model(more).dump());
}

// The message about a model with these layers, without the file's name.
std::string refusal_of_layers(const json& layers, json more = json::object()) {
  more["layers"] = layers;
  try {
    parse_layers(more);
  } catch (const Error& error) {
    return std::string(error.what()).substr(std::string("config.json: ").size());
  }
  return "no error";
}

const json kPlain = json::array({json::object()});  // one layer

json attention(const json& keys, json block = json::object()) {
  block["attention"] = keys.is_null() ? json::object() : keys;
  return {{{"blocks", {block, {{"experts", json::object()}}}}}};
}

json experts(const json& keys, json block = json::object()) {
  block["experts"] = keys.is_null() ? json::object() : keys;
  return {{{"blocks", {{{"attention", json::object()}}, block}}}};
}

// What `change` makes of a model with one layer.
ModelConfig changed(const std::function<void(ModelConfig&)>& change) {
  ModelConfig config = small_config();
  set_layers(config, 1);
  change(config);
  return config;
}

TEST(LayersJson, RepeatsLayersAndKeepsWhatIsSaidForAll) {
  EXPECT_EQ(parse_layers({{"layers", {{{"repeat", 3}}}}}), small_config());
  EXPECT_EQ(parse_layers({{"layers", {json::object(), json::object(), {{"repeat", 1}}}}}), small_config());
  EXPECT_EQ(parse_layers({{"layers", {{{"repeat", 2}}, json::object()}}, {"num_hidden_layers", 3}}), small_config());
  ModelConfig config = small_config();
  config.experts(0) = dense_experts(96, Activation::kRelu2);
  config.experts(2).per_token = 2;
  const json dense{{"num_experts", 0}, {"intermediate_size", 96}, {"hidden_act", "relu2"}};
  const json all{experts(dense)[0], json::object(), experts({{"num_experts_per_tok", 2}})[0]};
  EXPECT_EQ(parse_layers({{"layers", all}}), config);
}

// Every key at its default, of the file and of its blocks, is as if it were not there.
TEST(LayersJson, DefaultsMayBeWrittenOut) {
  const json attention{{"attention_kind", "grouped"},
                       {"num_attention_heads", 8},
                       {"num_key_value_heads", 4},
                       {"head_dim", 12},
                       {"v_head_dim", 0},
                       {"qkv_bias", false},
                       {"output_bias", false},
                       {"qk_norm", "none"},
                       {"qk_norm_after_rope", false},
                       {"sliding_window", 0},
                       {"sinks", false},
                       {"partial_rotary_factor", 1.0},
                       {"rope_interleaved", false},
                       {"rope_theta", 10000.0},
                       {"rope_f32", false},
                       {"rope_scaling", {{"rope_type", "default"}}},
                       {"attention_scale", 0},
                       {"attn_logit_softcapping", 0}};
  const json experts{{"num_experts", 16},
                     {"num_experts_per_tok", 4},
                     {"intermediate_size", nullptr},
                     {"moe_intermediate_size", 24},
                     {"hidden_act", "silu"},
                     {"norm_topk_prob", false},
                     {"router",
                      {{"score", "softmax"},
                       {"selection_bias", false},
                       {"n_group", 1},
                       {"topk_group", 1},
                       {"group_score", "max"},
                       {"top_p", 1.0},
                       {"norm", "none"},
                       {"norm_min", 0.0},
                       {"scale", 1.0},
                       {"bias", false}}},
                     {"mlp_bias", false},
                     {"swiglu_alpha", 1},
                     {"swiglu_limit", 0},
                     {"up_offset", 0},
                     {"num_shared_experts", 0},
                     {"shared_intermediate_size", 0},
                     {"shared_gate", false},
                     {"constant_experts", 0},
                     {"copy_experts", 0},
                     {"zero_experts", 0},
                     {"expert_storage", "own"},
                     {"experts_of_layer", nullptr}};
  EXPECT_EQ(attention.size(), attention_keys().size());
  EXPECT_EQ(experts.size(), expert_keys().size());
  const json blocks{{{"attention", attention}, {"norm", "before"}, {"residual_factor", 1.0}, {"parallel", false}},
                    {{"experts", experts}, {"norm", "before"}, {"residual_factor", 1.0}, {"parallel", false}}};
  json root{{"layers", {{{"repeat", 3}, {"blocks", blocks}}}},
            {"embedding_factor", 1.0},
            {"logit_factor", 1},
            {"logit_softcap", 0.0}};
  EXPECT_EQ(parse_layers(root), small_config());
  root.update(attention);
  root.update(experts);
  EXPECT_EQ(parse_layers(root), small_config());
  root.erase("layers");
  root["num_hidden_layers"] = 3;
  EXPECT_EQ(parse_layers(root), small_config());
}

TEST(LayersJson, ReadsEachKey) {
  struct Case {
    json layers;
    std::function<void(ModelConfig&)> change;
  };
  const auto of_attention = [](auto&& change) { return [=](ModelConfig& c) { change(c.attention(0)); }; };
  const auto of_experts = [](auto&& change) { return [=](ModelConfig& c) { change(c.experts(0)); }; };
  const auto of_block = [](int i, auto&& change) { return [=](ModelConfig& c) { change(c.layers[0].blocks[i]); }; };
  const Case cases[] = {
      {attention({{"num_attention_heads", 12}}), of_attention([](auto& a) { a.query_heads = 12; })},
      {attention({{"num_key_value_heads", 2}}), of_attention([](auto& a) { a.kv_heads = 2; })},
      {attention({{"head_dim", 6}}), of_attention([](auto& a) { a.key_width = 6; })},
      {attention({{"qk_norm", "head"}}), of_attention([](auto& a) { a.qk_norm = QkNorm::kHead; })},
      {attention({{"rope_theta", 5e5}}), of_attention([](auto& a) { a.rope_theta = 5e5; })},
      {attention({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 4}}}}),
       of_attention([](auto& a) { a.rope_factor = 4; })},
      {experts({{"num_experts", 9}}), of_experts([](auto& e) { e.count = 9; })},
      {experts({{"num_experts_per_tok", 1}}), of_experts([](auto& e) { e.per_token = 1; })},
      {experts({{"moe_intermediate_size", 7}}), of_experts([](auto& e) { e.width = 7; })},
      {experts({{"hidden_act", "gelu_pytorch_tanh"}}),
       of_experts([](auto& e) { e.activation = Activation::kGeluTanh; })},
      {experts({{"mlp_bias", true}, {"router", {{"bias", true}}}}),
       of_experts([](auto& e) { e.bias = e.router->bias = true; })},
      {experts({{"swiglu_alpha", 1.702}, {"swiglu_limit", 7}, {"up_offset", 1}}), of_experts([](auto& e) {
         e.gate = {1.702, 7, 1};
       })},
      {experts({{"norm_topk_prob", true}}), of_experts([](auto& e) { e.router->norm = RouterNorm::kSelected; })},
      {experts({{"router", {{"across_groups", true}}}}), of_experts([](auto& e) { e.router->across_groups = true; })},
      {experts({{"router", {{"top_p", 0.5}}}}), of_experts([](auto& e) { e.router->top_p = 0.5; })},
      {experts({{"num_shared_experts", 2}, {"shared_gate", true}}),
       of_experts([](auto& e) { e.shared = 2, e.shared_gate = true; })},
      {experts({{"num_shared_experts", 1}, {"shared_intermediate_size", 9}}),
       of_experts([](auto& e) { e.shared = 1, e.shared_width = 9; })},
      {experts({{"constant_experts", 1}, {"copy_experts", 2}, {"zero_experts", 3}}),
       of_experts([](auto& e) { e.constant = 1, e.copy = 2, e.zero = 3; })},
      {experts({{"expert_storage", "slices"}}), of_experts([](auto& e) { e.storage = ExpertStorage::kSlices; })},
      {attention({}, {{"norm", "after"}}), of_block(0, [](auto& b) { b.norm = BlockNorm::kAfter; })},
      {experts({}, {{"norm", "both"}}), of_block(1, [](auto& b) { b.norm = BlockNorm::kBoth; })},
      {experts({}, {{"norm", "shared"}, {"parallel", true}}),
       of_block(1, [](auto& b) { b.norm = BlockNorm::kShared, b.parallel = true; })},
      {attention({}, {{"residual_factor", 0.25}}), of_block(0, [](auto& b) { b.residual_factor = 0.25; })},
  };
  for (const Case& c : cases) EXPECT_EQ(parse_layers({{"layers", c.layers}}), changed(c.change)) << c.layers;
}

TEST(LayersJson, TheLastEntryIsAllLayersThatAreLeft) {
  const json last = attention({}, {{"residual_factor", 0.25}})[0];
  const ModelConfig config = parse_layers({{"num_hidden_layers", 4}, {"layers", {json::object(), last}}});
  ASSERT_EQ(config.num_layers(), 4);
  EXPECT_EQ(config.layers[0].blocks[0].residual_factor, 1);
  for (int l = 1; l < 4; ++l) EXPECT_EQ(config.layers[l].blocks[0].residual_factor, 0.25);
}

// A layer's router has the keys that it does not name from the one for all layers.
TEST(LayersJson, ARouterIsChangedKeyByKey) {
  const ModelConfig config = parse_layers(
      {{"router", {{"score", "sigmoid"}, {"scale", 2.0}}}, {"layers", experts({{"router", {{"scale", 3.0}}}})}});
  EXPECT_EQ(config.experts(0).router->score, RouterScore::kSigmoid);
  EXPECT_EQ(config.experts(0).router->scale, 3.0);
}

// Qwen3-MoE's intermediate_size beside moe_intermediate_size.
TEST(LayersJson, DenseLayersHaveTheWidthThatIsSaidForAll) {
  const json layers{experts({{"num_experts", 0}})[0], json::object()};
  EXPECT_EQ(parse_layers({{"intermediate_size", 96}, {"layers", layers}}).experts(0), dense_experts(96));
  EXPECT_EQ(refusal_of_layers(layers), "layers[0].blocks[1].experts.intermediate_size: expected a value, got none");
}

TEST(LayersJson, SparseLayersInADenseModelSayEverything) {
  const json dense{{"num_experts", 0}, {"intermediate_size", 96}, {"moe_intermediate_size", nullptr}};
  const json full{{"num_experts", 8}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 20}};
  json root = dense;
  root["layers"] = {json::object(), experts(full)[0]};
  const ModelConfig config = parse_layers(root);
  EXPECT_EQ(config.experts(0), dense_experts(96));
  EXPECT_EQ(config.experts(1).count, 8);
  EXPECT_FALSE(config.dense());
  EXPECT_EQ(refusal_of_layers({json::object(), experts({{"num_experts", 8}})[0]}, dense),
            "layers[1].blocks[1].experts.num_experts_per_tok: expected a value, got none");
}

// As of windows of all layers.
TEST(LayersJson, WindowsThatHideNothingAreNone) {
  EXPECT_EQ(parse_layers({{"layers", attention({{"sliding_window", 511}})}}).attention(0).window, 511);
  EXPECT_EQ(parse_layers({{"layers", attention({{"sliding_window", 512}})}}).attention(0).window, 0);
}

TEST(LayersJson, RefusesNamingThePath) {
  const std::pair<json, const char*> cases[] = {
      {3, "layers: expected a list of objects, got 3"},
      {json::array(), "layers: expected a list of objects, got []"},
      {json::array({7}), "layers[0]: expected an object, got 7"},
      {{{{"repeat", 0}}}, "layers[0].repeat: expected an integer from 1 to 1024 (1024 layers in all), got 0"},
      {{{{"repeat", 1000}}, {{"repeat", 25}}},
       "layers[1].repeat: expected an integer from 1 to 24 (1024 layers in all), got 25"},
      {{{{"repeat", "2"}}}, "layers[0].repeat: expected an integer of at most 2147483647, got \"2\""},
      {{{{"times", 2}}}, "layers[0]: expected no key but repeat, blocks, got \"times\""},
      {{{{"blocks", 2}}}, "layers[0].blocks: expected a list of objects, got 2"},
      {{{{"blocks", {2}}}}, "layers[0].blocks[0]: expected an object, got 2"},
      {{{{"blocks", {json::object()}}}}, "layers[0].blocks[0]: expected one of attention and experts, got neither"},
      {attention({}, {{"experts", json::object()}}),
       "layers[0].blocks[0]: expected one of attention and experts, got both"},
      {attention({}, {{"window", 3}}),
       "layers[0].blocks[0]: expected no key but attention, experts, norm, residual_factor, parallel, got \"window\""},
      {{{{"blocks", {{{"attention", json::object()}}}}}},
       "layers[0].blocks: expected attention and then experts, got 1 blocks"},
      {attention(5), "layers[0].blocks[0].attention: expected an object, got 5"},
      {attention({{"sliding_window", "x"}}),
       "layers[0].blocks[0].attention.sliding_window: expected an integer of at most 2147483647, got \"x\""},
      {attention({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2}, {"beta", 3}}}}),
       "layers[0].blocks[0].attention.rope_scaling: expected no key but rope_type, type, rope_theta, "
       "partial_rotary_factor, factor, original_max_position_embeddings, got \"beta\""},
      {attention({{"head_dim", 7}}),
       "layers[0].blocks[0].attention.head_dim: expected an even number (RoPE rotates pairs), got 7"},
      {attention({{"qk_norm", "all"}}),
       "layers[0].blocks[0].attention.qk_norm: expected \"none\" or \"head\" or \"full\", got \"all\""},
      {attention({{"attention_kind", "latent"}}),
       "layers[0].blocks[0].attention.attention_kind: expected grouped (nothing else is computed), got latent"},
      {attention({{"attention_kind", "recurrent"}}),
       "layers[0].blocks[0].attention.attention_kind: expected grouped (nothing else is computed), got recurrent"},
      {{json::object(), attention({{"num_attention_heads", 4}})[0]},
       "layers[1].blocks[0].attention.num_attention_heads: expected 8 query"},
      {attention({}, {{"norm", "shared"}}),
       "layers[0].blocks[0].norm: expected before, after or both in the first block of a layer, got shared"},
      {attention({}, {{"parallel", true}}),
       "layers[0].blocks[0].parallel: expected false in the first block of the first layer, got true"},
      {attention({}, {{"residual_factor", -1}}),
       "layers[0].blocks[0].residual_factor: expected a number from 1e-06 to 1000000, got -1"},
      {experts({}, {{"norm", "shared"}}),
       "layers[0].blocks[1].norm: expected before, after or both in a block that is not parallel, got shared"},
      {experts({}, {{"norm", "none"}}), "layers[0].blocks[1].norm: expected \"before\" or \"after\" or"},
      {experts({{"num_experts", -1}}),
       "layers[0].blocks[1].experts.num_experts: expected an integer from 1 to 16384, got -1"},
      {experts({{"num_experts_per_tok", 17}}),
       "layers[0].blocks[1].experts.num_experts_per_tok: expected an integer from 1 to 16, got 17"},
      {experts({{"intermediate_size", 17}}),
       "layers[0].blocks[1].experts.intermediate_size: expected none in a layer with a router (num_experts = 16), "
       "got 17"},
      {experts({{"num_experts", 0}, {"intermediate_size", 17}, {"copy_experts", 1}}),
       "layers[0].blocks[1].experts.copy_experts: expected none in a layer without a router (num_experts = 0), got 1"},
      {experts({{"router", {{"biases", true}}}}), "layers[0].blocks[1].experts.router: expected no key but score, "},
      {experts({{"router", {{"top_p", 2}}}}), "layers[0].blocks[1].experts.router.top_p: expected "},
      {experts({{"hidden_act", "gelu"}}), "layers[0].blocks[1].experts.hidden_act: expected \"silu\" or "},
      {experts({{"experts_of_layer", 0}}),
       "layers[0].blocks[1].experts.experts_of_layer: expected null or the index of a layer below layer 0, got 0"},
  };
  for (const auto& [layers, message] : cases)
    EXPECT_THAT(refusal_of_layers(layers), testing::StartsWith(message)) << layers;
  EXPECT_EQ(refusal_of_layers({{{"repeat", 1}}}, {{"num_hidden_layers", 2}}),
            "num_hidden_layers: expected 1, as there are in layers, got 2");
  EXPECT_EQ(refusal_of_layers(attention({}, {{"norm", "both"}}), {{"expert_groups", 2}, {"residual", "federated"}}),
            "layers[0].blocks[0].norm: expected before for the attention of a federated model, got both");
  EXPECT_EQ(refusal_of_layers(kPlain, {{"expert_groups", 0}}),
            "expert_groups: expected an integer from 1 to 1024, got 0");
}

TEST(LayersJson, FactorsAreChecked) {
  for (const char* key : {"embedding_factor", "logit_factor"})
    for (const double bad : {0.0, -2.0, 1e7})
      EXPECT_THAT(refusal_of_layers(kPlain, {{key, bad}}),
                  testing::StartsWith(std::string(key) + ": expected a number from 1e-06 to 1000000, got "));
  EXPECT_THAT(refusal_of_layers(kPlain, {{"logit_softcap", -30}}), HasSubstr("logit_softcap: expected a number from"));
}

TEST(LayersJson, WritesWhatItReads) {
  const auto round_trip = [](const ModelConfig& config) {
    ModelConfig back = parse_model_config(model_config_json(config));
    back.model_type = config.model_type;
    return back;
  };
  const std::function<void(ModelConfig&)> changes[] = {
      [](ModelConfig& c) { c.experts(0) = dense_experts(96, Activation::kGeluTanh); },
      [](ModelConfig& c) { c.experts(2) = dense_experts(96); },
      [](ModelConfig& c) { c.experts(1).router->norm = RouterNorm::kComputing, c.experts(1).zero = 2; },
      [](ModelConfig& c) { c.experts(0).router->norm = RouterNorm::kComputing, c.experts(0).zero = 2; },
      [](ModelConfig& c) { c.experts(0).router->norm = c.experts(2).router->norm = RouterNorm::kSelected; },
      [](ModelConfig& c) { c.experts(2).of_layer = 0; },
      [](ModelConfig& c) { c.experts(0) = dense_experts(96), c.experts(0).bias = c.experts(1).bias = true; },
      [](ModelConfig& c) {
        c.experts(1).router->bias = true, c.experts(2).gate = {1.702, 7, 1};
      },
      [](ModelConfig& c) {
        for_each_experts(c, [](ExpertsConfig& e) { e.gate.limit = 7, e.bias = true; });
        c.experts(2) = dense_experts(96);
        c.experts(2).gate.limit = 3;
      },
      [](ModelConfig& c) { c.experts(1).shared = 1, c.experts(1).activation = Activation::kRelu2; },
      [](ModelConfig& c) {
        for (LayerConfig& layer : c.layers) layer.blocks[1].parallel = true, layer.blocks[1].norm = BlockNorm::kShared;
      },
      [](ModelConfig& c) { c.layers[1].blocks[0].residual_factor = 1.0 / 3; },
      [](ModelConfig& c) { c.layers[1].blocks[0].norm = BlockNorm::kBoth; },
      [](ModelConfig& c) { c.embedding_factor = 12, c.logit_factor = 1.0 / 7, c.logit_softcap = 30; },
      [](ModelConfig& c) { for_each_experts(c, [](ExpertsConfig& e) { e.activation = Activation::kRelu2; }); },
  };
  for (const auto& change : changes) {
    ModelConfig config = small_config();
    change(config);
    EXPECT_EQ(round_trip(config), config) << model_config_json(config);
  }
  // Runs of layers that are alike are written once, with what differs from the first layer.
  ModelConfig config = small_config();
  set_layers(config, 5);
  config.experts(0) = dense_experts(96);
  const json written = json::parse(model_config_json(config))["layers"];
  ASSERT_EQ(written.size(), 2u);
  EXPECT_EQ(written[1]["repeat"], 4);
  EXPECT_EQ(written[1]["blocks"][0], (json{{"attention", json::object()}}));
  EXPECT_FALSE(json::parse(model_config_json(small_config())).contains("layers"));
}

// Read and written, though refused until they are computed.
TEST(AttentionJson, ReadsAndWritesEveryKey) {
  AttentionConfig all{.kind = AttentionKind::kLatent, .query_heads = 6, .kv_heads = 3, .key_width = 10};
  all.value_width = 4;
  all.qkv_bias = all.output_bias = all.sinks = all.interleaved = all.norm_after_rope = true;
  all.qk_norm = QkNorm::kFull;
  all.window = 64;
  all.rotary_share = 0.5;
  all.rope_theta = 1.0 / 3;
  all.rope_factor = 8;
  all.rope_f32 = true;
  all.scale = 0.1;
  all.softcap = 50;
  for (const auto& [from, to] : {std::pair{AttentionConfig{}, all}, {all, AttentionConfig{}}}) {
    nlohmann::ordered_json object = nlohmann::ordered_json::object();
    write_attention_keys(to, from, object);
    EXPECT_EQ(object.size(), attention_keys().size());
    AttentionConfig read = from;
    read_attention_keys(json::parse(object.dump()), read);
    EXPECT_EQ(read, to);
    nlohmann::ordered_json nothing = nlohmann::ordered_json::object();
    write_attention_keys(to, to, nothing);
    EXPECT_TRUE(nothing.empty());
  }
}

}  // namespace
}  // namespace foe
