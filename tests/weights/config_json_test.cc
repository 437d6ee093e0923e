#include "weights/config_json.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config_samples.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

TEST(ConfigJson, ReadsOlmoe) {
  const ModelConfig config = parse(olmoe());
  EXPECT_EQ(config.model_type, "olmoe");
  EXPECT_EQ(config.hidden_size, 16);
  EXPECT_EQ(config.num_layers(), 2);
  EXPECT_EQ(config.heads().query_heads, 4);
  EXPECT_EQ(config.heads().kv_heads, 2);
  EXPECT_EQ(config.heads().key_width, 4);
  EXPECT_EQ(config.vocab_size, 40);
  EXPECT_EQ(config.experts(0).count, 4);
  EXPECT_EQ(config.experts(0).per_token, 2);
  EXPECT_EQ(config.experts(0).width, 12);
  EXPECT_EQ(config.max_position_embeddings, 64);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.heads().rope_theta, 10000.0);
  EXPECT_EQ(config.heads().rope_factor, 1.0);
  EXPECT_EQ(config.heads().qk_norm, QkNorm::kFull);
  EXPECT_EQ(config.experts(0).router->norm, RouterNorm::kNone);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.expert_groups, 1);
  EXPECT_EQ(config.residual, Residual::kShared);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(7));
  EXPECT_FALSE(config.bos_token_id.has_value());
}

TEST(ConfigJson, ReadsMixtral) {
  const ModelConfig config = parse(mixtral());
  EXPECT_EQ(config.model_type, "mixtral");
  EXPECT_EQ(config.experts(0).count, 4);
  EXPECT_EQ(config.experts(0).width, 12);
  EXPECT_EQ(config.heads().key_width, 4);
  EXPECT_EQ(config.heads().rope_theta, 1e6);
  EXPECT_EQ(config.heads().qk_norm, QkNorm::kNone);
  EXPECT_EQ(config.experts(0).router->norm, RouterNorm::kSelected);
}

TEST(ConfigJson, ReadsQwen3Moe) {
  const ModelConfig config = parse(qwen3_moe());
  EXPECT_EQ(config.experts(0).width, 6);
  EXPECT_EQ(config.heads().key_width, 8);
  EXPECT_EQ(config.heads().qk_norm, QkNorm::kHead);
  EXPECT_EQ(config.experts(0).router->norm, RouterNorm::kSelected);
  json absent = qwen3_moe();
  absent.erase("norm_topk_prob");
  EXPECT_EQ(parse(absent).experts(0).router->norm, RouterNorm::kNone);
}

TEST(ConfigJson, ReadsDenseModels) {
  for (const char* type : {"llama", "mistral", "qwen3"}) {
    const ModelConfig config =
        parse(with(common(), {{"model_type", type}, {"mlp_bias", false}, {"tie_word_embeddings", true}}));
    EXPECT_TRUE(config.dense()) << type;
    EXPECT_EQ(config.experts(0).width, 12);
    EXPECT_EQ(config.heads().qk_norm, std::string(type) == "qwen3" ? QkNorm::kHead : QkNorm::kNone);
    EXPECT_TRUE(config.tie_word_embeddings);
  }
  json own = with(common(), {{"model_type", "foe"}, {"num_experts", 0}, {"moe_intermediate_size", 6}});
  EXPECT_EQ(parse(own).experts(0).width, 12);
  own.erase("intermediate_size");
  EXPECT_EQ(parse(own).experts(0).width, 6);
}

// What parse() makes of it: the configuration, or the error.
std::string outcome(const json& root) {
  try {
    return model_config_json(parse(root));
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ConfigJson, NullIsAsGoodAsNoKey) {
  for (const json& root : {olmoe(), mixtral(), qwen3_moe(), foe_model()})
    for (const auto& [key, value] : root.items()) {
      json without = root;
      without.erase(key);
      EXPECT_EQ(outcome(with(root, {{key, nullptr}})), outcome(without)) << key;
    }
}

TEST(ConfigJson, ReadsOurs) {
  const ModelConfig config = parse(foe_model());
  EXPECT_EQ(config.expert_groups, 2);
  EXPECT_EQ(config.residual, Residual::kFederated);
  EXPECT_EQ(config.group_sync, GroupSync::kSum);
  EXPECT_EQ(config.heads().qk_norm, QkNorm::kFull);
  json defaults = foe_model();
  for (const char* key : {"model_type", "qk_norm", "expert_groups", "residual", "group_sync", "num_key_value_heads"})
    defaults.erase(key);
  const ModelConfig plain = parse(defaults);
  EXPECT_EQ(plain.model_type, "foe");
  EXPECT_EQ(plain.expert_groups, 1);
  EXPECT_EQ(plain.residual, Residual::kShared);
  EXPECT_EQ(plain.group_sync, GroupSync::kMean);
  EXPECT_EQ(plain.heads().qk_norm, QkNorm::kNone);
  EXPECT_EQ(plain.heads().rope_theta, 10000.0);
  EXPECT_EQ(plain.heads().kv_heads, 4);
  // Our keys in another family's file, and under a name that we do not know.
  const ModelConfig grouped = parse(with(olmoe(), {{"expert_groups", 2}, {"qk_norm", "head"}}));
  EXPECT_EQ(grouped.expert_groups, 2);
  EXPECT_EQ(grouped.heads().qk_norm, QkNorm::kHead);
  EXPECT_EQ(parse(with(foe_model(), {{"model_type", "mine"}})).model_type, "mine");
}

TEST(ConfigJson, ReadsRopeOfBothTransformers) {
  const json linear = {{"type", "linear"}, {"factor", 16.0}};
  EXPECT_EQ(parse(with(olmoe(), {{"rope_scaling", linear}})).heads().rope_factor, 16.0);
  const json parameters = {{"rope_type", "linear"}, {"factor", 4}, {"rope_theta", 500000.0}};
  const ModelConfig config = parse(with(olmoe(), {{"rope_parameters", parameters}}));
  EXPECT_EQ(config.heads().rope_factor, 4.0);
  EXPECT_EQ(config.heads().rope_theta, 500000.0);  // not the outer one
  for (const json& plain : {json{{"rope_type", "default"}}, json::object()})
    EXPECT_EQ(parse(with(olmoe(), {{"rope_scaling", plain}})).heads().rope_factor, 1.0);
}

TEST(ConfigJson, RefusesOtherRope) {
  const auto error = [](const json& rope) { return error_with(with(olmoe(), {{"rope_scaling", rope}})); };
  EXPECT_THAT(error({{"rope_type", "mrope"}, {"factor", 4}}),
              HasSubstr("rope_scaling.rope_type: expected \"linear\" or \"default\" or \"dynamic\" or \"llama3\" or "
                        "\"yarn\" or \"longrope\", got \"mrope\""));
  EXPECT_THAT(error({{"factor", 4}}), HasSubstr("\"longrope\", got none"));
  EXPECT_THAT(error({{"rope_type", 1}}), HasSubstr("\"longrope\", got 1"));
  EXPECT_THAT(error({{"type", "linear"}}), HasSubstr("rope_scaling.factor: expected a value, got none"));
  EXPECT_THAT(error({{"rope_type", "yarn"}}), HasSubstr("rope_scaling.factor: expected a value, got none"));
  EXPECT_THAT(error({{"rope_type", "yarn"}, {"original_max_position_embeddings", 1024}}),
              HasSubstr("rope_scaling.factor: expected a value, got none"));
  EXPECT_THAT(error({{"type", "linear"}, {"factor", "4"}}),
              HasSubstr("rope_scaling.factor: expected a number, got \"4\""));
  EXPECT_THAT(error({{"type", "linear"}, {"factor", 0.5}}),
              HasSubstr("rope_scaling.factor: expected a finite number of at least 1, got 0.5"));
  EXPECT_THAT(error("linear"), HasSubstr("rope_scaling: expected an object or null, got \"linear\""));
  EXPECT_THAT(error({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
              HasSubstr("rope_scaling.partial_rotary_factor: expected 1, got 0.5"));
}

TEST(ConfigJson, NamesEachMissingKey) {
  for (const char* key : {"hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings",
                          "num_attention_heads", "num_experts_per_tok", "intermediate_size"}) {
    json root = olmoe();
    root.erase(key);
    EXPECT_EQ(error_with(root), std::string("config.json: ") + key + ": expected a value, got none");
    root[key] = nullptr;
    EXPECT_EQ(error_with(root), std::string("config.json: ") + key + ": expected a value, got none");
  }
  json root = olmoe();
  root.erase("num_experts");
  EXPECT_THAT(error_with(root),
              HasSubstr("num_experts: expected at least 1 in a model of type olmoe, got no such key"));
  EXPECT_THAT(error_with(with(root, {{"num_experts", 0}})), HasSubstr("in a model of type olmoe, got 0"));
  root = qwen3_moe();  // whose intermediate_size is that of other layers
  root.erase("moe_intermediate_size");
  EXPECT_THAT(error_with(root), HasSubstr("moe_intermediate_size: expected a value, got none"));
}

TEST(ConfigJson, RefusesWrongTypes) {
  const auto error = [](const json& more) { return error_with(with(foe_model(), more)); };
  EXPECT_THAT(error({{"hidden_size", "16"}}),
              HasSubstr("config.json: hidden_size: expected an integer of at most 2147483647, got \"16\""));
  EXPECT_THAT(error({{"hidden_size", 16.0}}),
              HasSubstr("hidden_size: expected an integer of at most 2147483647, got 16.0"));
  EXPECT_THAT(error({{"hidden_size", true}}),
              HasSubstr("hidden_size: expected an integer of at most 2147483647, got true"));
  EXPECT_THAT(error({{"hidden_size", 2147483648}}),
              HasSubstr("expected an integer of at most 2147483647, got 2147483648"));
  EXPECT_THAT(error({{"hidden_size", -2147483648}}),
              HasSubstr("expected an integer of at most 2147483647, got -2147483648"));
  EXPECT_THAT(error({{"hidden_size", 18446744073709551615u}}), HasSubstr("got 18446744073709551615"));
  EXPECT_THAT(error({{"hidden_size", -16}}), HasSubstr("hidden_size: expected an integer from 1 to 65536, got -16"));
  EXPECT_THAT(error({{"rms_norm_eps", "1e-5"}}), HasSubstr("rms_norm_eps: expected a number, got \"1e-5\""));
  EXPECT_THAT(error({{"rope_theta", json::array()}}), HasSubstr("rope_theta: expected a number, got []"));
  EXPECT_THAT(error({{"tie_word_embeddings", 1}}), HasSubstr("tie_word_embeddings: expected true or false, got 1"));
  EXPECT_THAT(error({{"norm_topk_prob", "no"}}), HasSubstr("norm_topk_prob: expected true or false, got \"no\""));
  EXPECT_THAT(error({{"qk_norm", true}}), HasSubstr("qk_norm: expected \"none\" or \"head\" or \"full\", got true"));
  EXPECT_THAT(error({{"residual", "Shared"}}),
              HasSubstr("residual: expected \"shared\" or \"federated\", got \"Shared\""));
  EXPECT_THAT(error({{"group_sync", "max"}}), HasSubstr("group_sync: expected \"mean\" or \"sum\", got \"max\""));
  EXPECT_THAT(error({{"eos_token_id", {1, "2"}}}),
              HasSubstr("eos_token_id: expected an integer of at most 2147483647, got \"2\""));
  EXPECT_THAT(error({{"bos_token_id", 1.5}}),
              HasSubstr("bos_token_id: expected an integer of at most 2147483647, got 1.5"));
  EXPECT_THAT(error({{"model_type", 3}}), HasSubstr("model_type: expected a string, got 3"));
}

TEST(ConfigJson, RefusesOtherArchitectures) {
  EXPECT_THAT(error_with(with(olmoe(), {{"model_type", "gpt2"}})),
              AllOf(HasSubstr("model_type: expected one of foe olmoe mixtral qwen3_moe"), HasSubstr(" llama "),
                    HasSubstr("got \"gpt2\"")));
  EXPECT_THAT(error_with(with(olmoe(), {{"hidden_act", "gelu"}})),
              HasSubstr("hidden_act: expected \"silu\" or \"gelu_pytorch_tanh\" or \"relu2\", got \"gelu\""));
  EXPECT_THAT(
      error_with(with(mixtral(), {{"attention_bias", true}})),
      HasSubstr("attention_bias: expected false in a model of type mixtral (nothing else is computed), got true"));
  EXPECT_THAT(error_with(with(olmoe(), {{"mlp_bias", true}})),
              HasSubstr("mlp_bias: expected false in a model of type"));
  EXPECT_THAT(error_with(with(olmoe(), {{"clip_qkv", 8.0}})), HasSubstr("clip_qkv: expected null in a model of type"));
  EXPECT_THAT(
      error_with(with(olmoe(), {{"partial_rotary_factor", 0.5}})),
      HasSubstr("partial_rotary_factor: expected 1 in a model of type olmoe (nothing else is computed), got 0.5"));
  EXPECT_THAT(error_with(with(olmoe(), {{"quantization_config", {{"bits", 4}}}})),
              AllOf(HasSubstr("quantization_config: expected null"), HasSubstr("got {\"bits\":4}")));
  EXPECT_THAT(error_with(with(olmoe(), {{"mlp_only_layers", {0, 1}}})), HasSubstr("mlp_only_layers: expected []"));
  EXPECT_THAT(error_with(with(mixtral(), {{"norm_topk_prob", false}})),
              HasSubstr("norm_topk_prob: expected true, got false"));
  EXPECT_THAT(error_with(with(mixtral(), {{"num_experts", 8}})),
              HasSubstr("num_experts: expected the value of num_local_experts = 4, got 8"));
  EXPECT_THAT(error_with(with(mixtral(), {{"num_attention_heads", 3}})),
              HasSubstr("num_attention_heads: expected a divisor of hidden_size = 16 (there is no head_dim), got 3"));
  EXPECT_THAT(error_with(with(mixtral(), {{"num_attention_heads", 0}})),
              HasSubstr("expected a divisor of hidden_size = 16"));
}

// In our own dialect a key that nobody knows is a slip, such as one of a block or a router at the top.
TEST(ConfigJson, RefusesKeysThatOurDialectHasNot) {
  const json ours = {{"model_type", "foe"},      {"vocab_size", 32},           {"hidden_size", 16},
                     {"num_hidden_layers", 2},   {"num_attention_heads", 2},   {"num_experts", 4},
                     {"num_experts_per_tok", 2}, {"moe_intermediate_size", 8}, {"max_position_embeddings", 64},
                     {"rms_norm_eps", 1e-6},     {"rope_theta", 1e4}};
  EXPECT_EQ(error_with(ours), "no error");
  EXPECT_EQ(error_with(with(ours, {{"torch_dtype", "bfloat16"}})), "no error");
  for (const char* key : {"group_sync_evry", "across_groups", "parallel", "residual_factor"})
    EXPECT_THAT(error_with(with(ours, {{key, 2}})),
                HasSubstr(std::string(key) + ": expected only keys of docs/config.md in a model of type foe"));
}

// Keys with the value that changes nothing, or that change no logits, pass; what nobody knows is told.
TEST(ConfigJson, TellsKeysThatNobodyKnows) {
  const auto unknown = [](const json& more) {
    std::vector<std::string> keys;
    parse_model_config(with(olmoe(), more).dump(), "config.json", &keys);
    return keys;
  };
  EXPECT_THAT(unknown({{"torch_dtype", "bfloat16"}, {"initializer_range", 0.02}, {"use_cache", true}}), IsEmpty());
  EXPECT_THAT(unknown({{"n_group", 1}, {"residual_multiplier", 1.0}, {"mlp_bias", false}}), IsEmpty());
  EXPECT_THAT(unknown({{"z_of_tomorrow", 3}, {"a_of_tomorrow", {1}}, {"off", nullptr}}),
              ElementsAre("a_of_tomorrow", "z_of_tomorrow"));
  const TempFolder folder;
  folder.write("config.json", olmoe().dump());
  EXPECT_THAT(config_notes(folder.path()), IsEmpty());
  folder.write("config.json", with(olmoe(), {{"of_tomorrow", 3}}).dump());
  EXPECT_THAT(config_notes(folder.path()), ElementsAre(HasSubstr("does not read: of_tomorrow")));
}

TEST(ConfigJson, ReadsWhichLayersOfQwen3MoeAreDense) {
  json root = with(qwen3_moe(), {{"num_hidden_layers", 6}, {"decoder_sparse_step", 2}, {"mlp_only_layers", {3}}});
  const ModelConfig config = parse(root);
  for (int l = 0; l < 6; ++l) {
    const bool dense = l != 1 && l != 5;
    EXPECT_EQ(config.experts(l).dense(), dense) << l;
    EXPECT_EQ(config.experts(l).width, dense ? 12 : 6) << l;
  }
  EXPECT_THAT(error_with(with(root, {{"decoder_sparse_step", 0}})), HasSubstr("expected at least 1, got 0"));
  EXPECT_THAT(error_with(with(root, {{"mlp_only_layers", 3}})), HasSubstr("mlp_only_layers: expected a list"));
}

TEST(ConfigJson, RefusesLayersOfOtherTypes) {
  const auto parse_types = [](const json& types) { parse(with(qwen3_moe(), {{"layer_types", types}})); };
  parse_types({"full_attention", "full_attention"});
  const json types_of_both{{"layer_types", {"full_attention", "sliding_attention"}}};
  parse(with(with(qwen3_moe(), {{"sliding_window", 64}, {"use_sliding_window", true}}), types_of_both));
  for (const json& types : {json{"full_attention", "chunked_attention"}, json{"full_attention", "sliding_attention"},
                            json{3}, json::object(), json("full_attention")})
    EXPECT_THAT(error_of([&] { parse_types(types); }),
                HasSubstr("layer_types: expected a list of \"full_attention\" alone with sliding_window = 0, got "));
  const json unused{{"sliding_window", 8}, {"use_sliding_window", false}, {"layer_types", {"sliding_attention"}}};
  EXPECT_THAT(error_of([&] { parse(with(qwen3_moe(), unused)); }), HasSubstr("layer_types: expected"));
}

// Of all four projections.
TEST(ConfigJson, ReadsBiases) {
  for (const json& root : {olmoe(), qwen3_moe(), foe_model(), with(common(), {{"model_type", "llama"}})}) {
    const AttentionConfig biased = parse(with(root, {{"attention_bias", true}})).attention(1);
    EXPECT_TRUE(biased.qkv_bias && biased.output_bias);
    const AttentionConfig plain = parse(with(root, {{"attention_bias", false}})).attention(1);
    EXPECT_FALSE(plain.qkv_bias || plain.output_bias);
  }
}

// In the families whose layers have all the same window; in others the key would be read as it is not meant.
TEST(ConfigJson, ReadsSlidingWindows) {
  const auto window = [](const char* type, const json& more) {
    return parse(with(with(type == std::string("mixtral") ? mixtral() : common(), {{"model_type", type}}), more))
        .attention(1)
        .window;
  };
  const json all = {"sliding_attention", "sliding_attention"};
  for (const char* type : {"mistral", "mixtral", "foe"}) {
    EXPECT_EQ(window(type, {{"sliding_window", 63}}), 63);
    EXPECT_EQ(window(type, {{"sliding_window", 63}, {"layer_types", all}}), 63);
    const std::string without = error_of([&] { window(type, {{"sliding_window", 0}}); });
    EXPECT_EQ(without.ends_with("sliding_window: expected null or at least 1, got 0"), type != std::string("foe"));
    EXPECT_THAT(
        error_of([&] {
          window(type, {{"sliding_window", 63}, {"layer_types", {"sliding_attention", "full_attention"}}});
        }),
        HasSubstr(
            "layer_types: expected a list of \"sliding_attention\" alone with sliding_window = 63, got [\"sliding"));
  }
  // Windows that hide nothing.
  for (const char* type : {"mistral", "llama", "qwen3"}) EXPECT_EQ(window(type, {{"sliding_window", 64}}), 0);
  for (const char* type : {"llama", "qwen3", "foe"})
    EXPECT_EQ(window(type, {{"sliding_window", 8}, {"use_sliding_window", false}}), 0);
  // A key that Mistral does not have.
  EXPECT_EQ(window("mistral", {{"sliding_window", 8}, {"use_sliding_window", false}}), 8);
  EXPECT_EQ(window("qwen3", {{"sliding_window", 63}, {"use_sliding_window", true}, {"max_window_layers", 1}}), 63);
  EXPECT_EQ(window("qwen3", {{"sliding_window", 63}, {"use_sliding_window", true}, {"max_window_layers", 2}}), 0);
  EXPECT_THAT(error_of([&] {
                window("llama", {{"sliding_window", 63}});
              }),
              HasSubstr("sliding_window: expected null or at least max_position_embeddings = 64 in a model of type "
                        "llama, got 63"));
}

TEST(ConfigJson, RefusesBadJson) {
  const auto error = [](const std::string& text) {
    return error_of([&] { parse_model_config(text, "some/config.json"); });
  };
  EXPECT_THAT(error(""), AllOf(StartsWith("some/config.json: expected JSON, got: "), HasSubstr("parse error")));
  EXPECT_THAT(error("{\"a\": NaN}"), HasSubstr("expected JSON, got: "));
  EXPECT_THAT(error("{\"rope_theta\": 1e999}"), AllOf(HasSubstr("expected JSON, got: "), HasSubstr("overflow")));
  EXPECT_THAT(error("{\"a\": \"\xff\"}"), AllOf(HasSubstr("expected JSON, got: "), HasSubstr("UTF-8")));
  EXPECT_THAT(error("{} {}"), HasSubstr("expected JSON, got: "));
  EXPECT_THAT(error(std::string("{}\0", 3)), HasSubstr("expected JSON, got a NUL at byte 2"));
  EXPECT_THAT(error("[]"), HasSubstr("expected a JSON object, got []"));
  EXPECT_THAT(error(R"({"hidden_size": 16, "hidden_size": 16})"),
              HasSubstr("expected every key once, got \"hidden_size\" twice"));
  EXPECT_THAT(error(R"({"a": {"b": 1, "c": {"b": 1}, "b": 2}})"),
              HasSubstr("expected every key once, got \"b\" twice"));
  EXPECT_THAT(error(std::string(33, '[')), HasSubstr("nested at most 32 deep"));
  EXPECT_THAT(error(std::string(1'000'000, '[')), HasSubstr("nested at most 32 deep"));
  EXPECT_THAT(error("{\"a\": " + std::string(31, '[') + std::string(31, ']') + "}"), HasSubstr("hidden_size"));
}

TEST(ConfigJson, TimeIsLinearInTheNumberOfObjects) {
  // Quadratic time would be 10^12 steps here, and the test would not end.
  std::string text = "{\"hidden_size\": [{}";
  for (int i = 0; i < 1'000'000; ++i) text += ",{}";
  EXPECT_THAT(error_of([&] { parse_model_config(text + "]}"); }), HasSubstr("expected an integer"));
}

TEST(ConfigJson, LoadsFoldersAndTokensOfGeneration) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { load_model_config(folder.path()); }),
              AllOf(StartsWith(folder / "config.json"), HasSubstr("expected a file")));
  folder.write("config.json", with(olmoe(), {{"bos_token_id", 3}}).dump());
  EXPECT_THAT(load_model_config(folder.path()).eos_token_ids, ElementsAre(7));
  folder.write("generation_config.json", R"({"eos_token_id": [8, 9], "temperature": 0.6})");
  EXPECT_THAT(load_model_config(folder.path()).eos_token_ids, ElementsAre(8, 9));
  EXPECT_EQ(load_model_config(folder.path()).bos_token_id, 3);
  folder.write("generation_config.json", R"({"eos_token_id": null, "bos_token_id": 4})");
  EXPECT_THAT(load_model_config(folder.path()).eos_token_ids, ElementsAre(7));
  EXPECT_EQ(load_model_config(folder.path()).bos_token_id, 4);
  folder.write("generation_config.json", R"({"eos_token_id": -1})");
  EXPECT_THAT(error_of([&] { load_model_config(folder.path()); }),
              AllOf(StartsWith(folder / "generation_config.json: eos_token_id: expected"), HasSubstr("got -1")));
  folder.write("generation_config.json", "3");
  EXPECT_THAT(error_of([&] { load_model_config(folder.path()); }), HasSubstr("expected a JSON object, got 3"));
}

TEST(ConfigJson, RefusesFilesThatAreTooLargeOrNone) {
  const TempFolder folder;
  folder.write("config.json", "");
  std::filesystem::resize_file(folder / "config.json", (16 << 20) + 1);
  EXPECT_THAT(error_of([&] { load_model_config(folder.path()); }),
              HasSubstr("expected at most 16777216 bytes, got 16777217"));
  std::filesystem::remove(folder / "config.json");
  std::filesystem::create_directory(folder / "config.json");
  EXPECT_THAT(error_of([&] { load_model_config(folder.path()); }), HasSubstr("expected a file, got something else"));
}

}  // namespace
}  // namespace foe
