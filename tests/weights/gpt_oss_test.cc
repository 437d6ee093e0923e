// gpt-oss: its published configurations, and its experts, transposed, in turn, and in MXFP4.
#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "base/text_file.h"
#include "core/model_tensors.h"
#include "temp_folder.h"
#include "weights/config_json.h"
#include "weights/packed_tensors.h"
#include "weights/rearranged.h"
#include "weights/stored_tensors.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json published(const std::string& name) {
  return json::parse(read_text_file(FOE_SOURCE_DIR "/tests/weights/published/" + name + ".json", 1 << 20));
}

// The same with so many layers and experts.
json small(int layers, int experts) {
  json root = published("gpt-oss-20b");
  root.erase("layer_types");
  root["num_hidden_layers"] = layers;
  root["num_local_experts"] = experts;
  return root;
}

ModelConfig parse_gpt_oss(const json& root) {
  return parse_model_config(root.dump(), "config.json");
}

// In billions. The active ones are published without the embedding, of which a token uses one row.
TEST(GptOss, PublishedConfigurationsAreRead) {
  const std::tuple<const char*, double, double> models[] = {{"gpt-oss-20b", 20.91, 3.61},
                                                            {"gpt-oss-120b", 116.83, 5.13}};
  for (const auto& [name, all, active] : models) {
    const ModelConfig config = parse_gpt_oss(published(name));
    const double embedding = 201088.0 * 2880;
    EXPECT_NEAR(static_cast<double>(parameter_count(config)) / 1e9, all, 0.006);
    EXPECT_NEAR((static_cast<double>(active_parameter_count(config)) - embedding) / 1e9, active, 0.006);
    EXPECT_EQ(config.attention(0).window, 128);
    EXPECT_EQ(config.attention(1).window, 0);
    EXPECT_TRUE(config.attention(1).sinks && config.attention(0).qkv_bias && config.attention(0).output_bias);
    EXPECT_TRUE(config.experts(0).bias && config.experts(0).router->bias);
    EXPECT_EQ(config.experts(0).router->score, RouterScore::kSelectedSoftmax);
    EXPECT_EQ(config.experts(0).gate, (GateShape{1.702, 7, 1}));
    EXPECT_EQ(config.attention(1).rope_theta, 150000);
  }
}

TEST(GptOss, RefusesWhatItDoesNotCompute) {
  const auto refusal = [](const json& more) {
    json root = small(2, 4);
    root.update(more);
    return error_of([&] { parse_gpt_oss(root); });
  };
  EXPECT_THAT(refusal({{"hidden_act", "gelu"}}), HasSubstr("hidden_act: expected \"silu\", got \"gelu\""));
  EXPECT_THAT(refusal({{"num_experts", 8}}), HasSubstr("num_experts: expected 4, got 8"));
  EXPECT_THAT(refusal({{"experts_per_token", 2}}), HasSubstr("experts_per_token: expected 4, got 2"));
  EXPECT_THAT(refusal({{"swiglu_limit", -1}}), HasSubstr("swiglu_limit: expected a number from"));
  for (const json& quantised : {json{{"quant_method", "gptq"}}, json{{"bits", 4}}, json("mxfp4"), json::array()})
    EXPECT_THAT(refusal({{"quantization_config", quantised}}),
                HasSubstr("quantization_config: expected null or an object with quant_method = \"mxfp4\""));
}

TEST(Rearranged, RowsInTurnAndTransposed) {
  std::vector<float> values(4 * 6);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Tensor tensor{DType::kF32, {4, 6}, std::as_bytes(std::span(values)), "t"};
  const auto read = [](const Tensor& t) {
    std::vector<float> out(t.size());
    read_floats(t, 0, out);
    return out;
  };
  const Tensor strided = strided_rows(tensor, {1, 2, 2});
  EXPECT_EQ(strided.shape, (std::vector<std::int64_t>{2, 6}));
  EXPECT_EQ(read(strided), (std::vector<float>{6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23}));
  const Tensor transposed = transposed_rows(tensor, {1, 2, 3});
  EXPECT_EQ(transposed.shape, (std::vector<std::int64_t>{3, 4}));
  EXPECT_EQ(read(transposed), (std::vector<float>{1, 7, 13, 19, 3, 9, 15, 21, 5, 11, 17, 23}));
  // More than one tile.
  std::vector<BF16> many(150 * 260);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = to_bf16(static_cast<float>(random_bits(1, i) % 1000));
  const Tensor wide{DType::kBF16, {150, 260}, std::as_bytes(std::span(many)), "t"};
  const std::vector<float> turned = read(transposed_rows(wide, {0, 2, 130})), all = read(wide);
  for (int r = 0; r < 130; ++r)
    for (int k = 0; k < 150; ++k) ASSERT_EQ(turned[r * 150 + k], all[k * 260 + 2 * r]);
}

// The formula of the OCP Microscaling specification, version 1.0: a sign, two bits of exponent with bias 1, one of
// mantissa, times 2^(e - 127).
double mxfp4(unsigned code, int e) {
  const int exponent = static_cast<int>(code >> 1 & 3);
  const double mantissa = code & 1, size = exponent == 0 ? mantissa / 2 : std::ldexp(1 + mantissa / 2, exponent - 1);
  return std::ldexp(code & 8 ? -size : size, e - 127);
}

// All exponents but that of no number; where products leave the range of f32, they are not finite there.
TEST(Rearranged, Mxfp4IsExactInBf16) {
  std::vector<std::byte> codes(255 * 16), exponents(255);
  for (int e = 0; e < 255; ++e) {
    exponents[e] = static_cast<std::byte>(e);
    for (int j = 0; j < 16; ++j) codes[e * 16 + j] = static_cast<std::byte>(j + 16 * ((j + e) % 16));
  }
  const Tensor rows = mxfp4_rows(codes, exponents, 32, {0, 1, 255}, "t");
  std::vector<float> values(255 * 32);
  read_floats(rows, 0, values);
  for (int e = 0; e < 255; ++e)
    for (int k = 0; k < 32; ++k) {
      const auto code = static_cast<unsigned>(codes[e * 16 + k / 2]) >> (k % 2 * 4) & 15;
      const double expected = mxfp4(code, e);
      const float value = values[e * 32 + k];
      if (std::abs(expected) > std::numeric_limits<float>::max())
        ASSERT_FALSE(std::isfinite(value));
      else
        ASSERT_EQ(value, expected) << e << " " << k;
      ASSERT_TRUE(to_float(to_bf16(value)) == value) << e << " " << k;
    }
}

// A folder with one layer of two experts, hidden size 64 and width 32.
class Folder {
 public:
  static ModelConfig config() {
    json root = small(1, 2);
    root.update({{"hidden_size", 64},
                 {"intermediate_size", 32},
                 {"vocab_size", 8},
                 {"num_attention_heads", 2},
                 {"num_key_value_heads", 1},
                 {"head_dim", 4},
                 {"num_experts_per_tok", 2},
                 {"experts_per_token", 2}});
    return parse_gpt_oss(root);
  }

  Folder() {
    const std::string p = "model.layers.0.";
    for (const char* name : {"input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.o_proj.bias"})
      add(p + name, {64});
    add(p + "self_attn.q_proj.weight", {8, 64}), add(p + "self_attn.q_proj.bias", {8});
    for (const char* name : {"k", "v"}) {
      add(p + "self_attn." + name + "_proj.weight", {4, 64});
      add(p + "self_attn." + name + "_proj.bias", {4});
    }
    add(p + "self_attn.o_proj.weight", {64, 8}), add(p + "self_attn.sinks", {2});
    add(p + "mlp.router.weight", {2, 64}), add(p + "mlp.router.bias", {2});
    add(kExperts + "gate_up_proj_bias", {2, 64}), add(kExperts + "down_proj_bias", {2, 64});
    add("model.embed_tokens.weight", {8, 64}), add("lm_head.weight", {8, 64}), add("model.norm.weight", {64});
  }

  void add(const std::string& name, const std::vector<std::int64_t>& shape) {
    auto& v = floats_.emplace_back(size_of_shape(shape));
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(random_normal(floats_.size(), i));
    sources_.push_back(float_source(name, DType::kF32, shape, v));
  }
  std::vector<std::byte>& add_bytes(const std::string& name, const std::vector<std::int64_t>& shape, unsigned most,
                                    std::string_view type = "U8") {
    auto& v = bytes_.emplace_back(size_of_shape(shape));
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<std::byte>(random_bits(bytes_.size(), i) % most);
    sources_.push_back(byte_source(name, type, shape, v));
    return v;
  }
  void add_mxfp4() {
    add_bytes(kExperts + "gate_up_proj_blocks", {2, 64, 2, 16}, 256);
    add_bytes(kExperts + "gate_up_proj_scales", {2, 64, 2}, 140);
    add_bytes(kExperts + "down_proj_blocks", {2, 64, 1, 16}, 256);
    add_bytes(kExperts + "down_proj_scales", {2, 64, 1}, 140);
  }
  TensorFolder open() {
    write_tensor_file(folder_ / "model.safetensors", sources_);
    return TensorFolder(folder_.path());
  }

  inline static const std::string kExperts = "model.layers.0.mlp.experts.";

 private:
  static std::size_t size_of_shape(const std::vector<std::int64_t>& shape) {
    std::size_t size = 1;
    for (const std::int64_t n : shape) size *= static_cast<std::size_t>(n);
    return size;
  }

  TempFolder folder_;
  std::deque<std::vector<float>> floats_;
  std::deque<std::vector<std::byte>> bytes_;
  std::vector<TensorSource> sources_;
};

std::vector<float> values_of(const StoredTensors& stored, TensorRole role, int index) {
  const Tensor tensor = stored.find(stored.table().at(role, 0), index).tensor;
  std::vector<float> out(tensor.size());
  read_floats(tensor, 0, out);
  return out;
}

TEST(GptOss, ExpertsAreTransposedAndInTurn) {
  Folder folder;
  folder.add(Folder::kExperts + "gate_up_proj", {2, 64, 64});  // the shape does not say which dimension is which
  folder.add(Folder::kExperts + "down_proj", {2, 32, 64});
  const TensorFolder tensors = folder.open();
  const ModelConfig config = Folder::config();
  const StoredTensors stored(tensors, config);
  EXPECT_NO_THROW(check_tensors(stored, stored_formats(stored, config)));
  const auto all = [&](const std::string& name) {
    const Tensor tensor = tensors.find(Folder::kExperts + name).value();
    std::vector<float> out(tensor.size());
    read_floats(tensor, 0, out);
    return out;
  };
  const auto gate_up = all("gate_up_proj"), down = all("down_proj"), bias = all("gate_up_proj_bias");
  for (int e = 0; e < 2; ++e) {
    const auto gate = values_of(stored, TensorRole::kGateProj, e), up = values_of(stored, TensorRole::kUpProj, e);
    for (int f = 0; f < 32; ++f)
      for (int d = 0; d < 64; ++d) {
        ASSERT_EQ(gate[f * 64 + d], gate_up[(e * 64 + d) * 64 + 2 * f]);
        ASSERT_EQ(up[f * 64 + d], gate_up[(e * 64 + d) * 64 + 2 * f + 1]);
        ASSERT_EQ(values_of(stored, TensorRole::kDownProj, e)[d * 32 + f], down[(e * 32 + f) * 64 + d]);
      }
    for (int f = 0; f < 32; ++f) {
      EXPECT_EQ(values_of(stored, TensorRole::kGateBias, e)[f], bias[e * 64 + 2 * f]);
      EXPECT_EQ(values_of(stored, TensorRole::kUpBias, e)[f], bias[e * 64 + 2 * f + 1]);
    }
  }
}

TEST(GptOss, ExpertsMayBeInMxfp4) {
  Folder folder;
  folder.add_mxfp4();
  const TensorFolder tensors = folder.open();
  const ModelConfig config = Folder::config();
  const StoredTensors stored(tensors, config);
  const StoredFormats formats = stored_formats(stored, config);
  EXPECT_NO_THROW(check_tensors(stored, formats));
  const auto codes = tensors.bytes(Folder::kExperts + "gate_up_proj_blocks", {2, 64, 2, 16});
  const auto exponents = tensors.bytes(Folder::kExperts + "gate_up_proj_scales", {2, 64, 2});
  for (int e = 0; e < 2; ++e) {
    const auto up = values_of(stored, TensorRole::kUpProj, e);
    for (int f = 0; f < 32; ++f)
      for (int d = 0; d < 64; ++d) {
        const int block = (e * 64 + 2 * f + 1) * 2 + d / 32;
        const auto code = static_cast<unsigned>(codes[block * 16 + d % 32 / 2]) >> (d % 2 * 4) & 15;
        ASSERT_EQ(up[f * 64 + d], mxfp4(code, static_cast<int>(exponents[block])));
      }
  }
}

// What a hostile or damaged file may have.
TEST(GptOss, RefusesOtherMxfp4) {
  const auto refusal = [](auto&& add) {
    Folder folder;
    add(folder);
    const TensorFolder tensors = folder.open();
    const ModelConfig config = Folder::config();
    return error_of([&] {
      const StoredTensors stored(tensors, config);
      check_tensors(stored, stored_formats(stored, config));
    });
  };
  const std::string p = Folder::kExperts;
  const auto down = [&](Folder& f) {
    f.add_bytes(p + "down_proj_blocks", {2, 64, 1, 16}, 256), f.add_bytes(p + "down_proj_scales", {2, 64, 1}, 140);
  };
  EXPECT_THAT(refusal([&](Folder& f) {
                down(f), f.add_bytes(p + "gate_up_proj_blocks", {2, 64, 2, 16}, 256);
              }),
              HasSubstr("gate_up_proj_scales: expected a tensor of shape [2, 64, 2], got no such tensor"));
  EXPECT_THAT(refusal([&](Folder& f) {
                down(f), f.add_bytes(p + "gate_up_proj_blocks", {2, 64, 2, 16}, 256);
                f.add_bytes(p + "gate_up_proj_scales", {2, 64, 1}, 140);
              }),
              HasSubstr("gate_up_proj_scales: expected shape [2, 64, 2], got [2, 64, 1]"));
  EXPECT_THAT(refusal([&](Folder& f) {
                down(f), f.add_bytes(p + "gate_up_proj_blocks", {2, 32, 4, 16}, 256);
                f.add_bytes(p + "gate_up_proj_scales", {2, 64, 2}, 140);
              }),
              HasSubstr("gate_up_proj_blocks: expected shape [2, 64, 2, 16], got [2, 32, 4, 16]"));
  EXPECT_THAT(refusal([&](Folder& f) {
                down(f), f.add_bytes(p + "gate_up_proj_blocks", {2, 64, 2, 16}, 256, "I8");
                f.add_bytes(p + "gate_up_proj_scales", {2, 64, 2}, 140);
              }),
              HasSubstr("gate_up_proj_blocks: expected bytes of type U8, got I8"));
  EXPECT_THAT(refusal([&](Folder& f) {
                f.add_mxfp4(), f.add(p + "gate_up_proj", {2, 64, 64});
              }),
              HasSubstr("expected no tensors but those that config.json describes"));
  Folder folder;
  folder.add_mxfp4();
  const TensorFolder tensors = folder.open();
  ModelConfig config = Folder::config();
  config.hidden_size = 48;
  const StoredTensors stored(tensors, config);
  EXPECT_THAT(error_of([&] { stored.check(stored.table().at(TensorRole::kGateProj, 0)); }),
              HasSubstr("expected matrices in MXFP4 to have a multiple of 32 columns, got 48"));
}

}  // namespace
}  // namespace foe
