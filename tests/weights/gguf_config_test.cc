#include "weights/gguf/gguf_config.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "gguf_bytes.h"
#include "temp_folder.h"
#include "weights/config_json.h"
#include "weights/stored_tensors.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

// The keys of a small llama, but for those that begin with `without`.
GgufBytes llama(const std::string& architecture = "llama", const std::string& without = "-") {
  GgufBytes file;
  file.text("general.architecture", architecture);
  const auto add = [&](const std::string& key, std::uint32_t value) {
    if (!key.starts_with(without)) file.u32(architecture + "." + key, value);
  };
  add("block_count", 2);
  add("context_length", 64);
  add("embedding_length", 32);
  add("feed_forward_length", 48);
  add("attention.head_count", 4);
  add("attention.head_count_kv", 2);
  file.f32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
  return file;
}

class GgufConfig : public testing::Test {
 protected:
  // Reads a file with an embedding of 40 rows, F32, and the names of further tensors of one number each.
  ModelConfig read(GgufBytes file, const std::vector<std::string>& others = {}) {
    file.tensor("token_embd.weight", {32, 40}, 0, 0);
    std::uint64_t at = 40 * 32 * 4;
    for (const std::string& name : others) file.tensor(name, {1}, 0, std::exchange(at, at + 32));
    folder_.write("m.gguf", file.file(at));
    return load_model_config(path());
  }
  void expect_refused(const GgufBytes& file, const std::string& message, const std::vector<std::string>& others = {}) {
    EXPECT_THAT([&] { read(file, others); }, ThrowsMessage<Error>(AllOf(StartsWith(path()), HasSubstr(message))));
  }
  std::string path() const { return folder_ / "m.gguf"; }

 private:
  TempFolder folder_;
};

TEST_F(GgufConfig, OfLlama) {
  const ModelConfig config = read(llama().f32("llama.rope.freq_base", 5e5f), {"output.weight"});
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.num_layers(), 2);
  EXPECT_EQ(config.max_position_embeddings, 64);
  EXPECT_EQ(config.hidden_size, 32);
  EXPECT_EQ(config.vocab_size, 40);
  EXPECT_EQ(config.heads().query_heads, 4);
  EXPECT_EQ(config.heads().kv_heads, 2);
  EXPECT_EQ(config.heads().key_width, 8);
  EXPECT_EQ(config.heads().rope_theta, 5e5);
  EXPECT_TRUE(config.heads().interleaved);
  EXPECT_FALSE(config.heads().qkv_bias || config.heads().output_bias);
  EXPECT_EQ(config.experts(0).width, 48);
  EXPECT_TRUE(config.dense());
  EXPECT_EQ(config.rms_norm_eps, 1e-5);  // and not what the nearest f32 is
  EXPECT_FALSE(config.tie_word_embeddings);
}

TEST_F(GgufConfig, TiesAndBiasesAreWhatTensorsSay) {
  const ModelConfig config = read(llama(), {"blk.0.attn_q.bias", "blk.1.attn_q.bias", "blk.0.attn_output.bias"});
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_TRUE(config.attention(0).qkv_bias && config.attention(1).qkv_bias);
  EXPECT_TRUE(config.attention(0).output_bias);
  EXPECT_FALSE(config.attention(1).output_bias);
}

TEST_F(GgufConfig, LlamaWithExpertsIsMixtral) {
  const ModelConfig config = read(llama().u32("llama.expert_count", 8).u32("llama.expert_used_count", 2));
  EXPECT_EQ(config.model_type, "mixtral");
  EXPECT_EQ(config.experts(1).count, 8);
  EXPECT_EQ(config.experts(1).per_token, 2);
  EXPECT_EQ(config.experts(1).width, 48);
  EXPECT_TRUE(config.heads().interleaved);
}

TEST_F(GgufConfig, Qwen3IsNotInterleaved) {
  const ModelConfig config = read(llama("qwen3").u32("qwen3.attention.key_length", 16));
  EXPECT_EQ(config.model_type, "qwen3");
  EXPECT_EQ(config.heads().key_width, 16);
  EXPECT_EQ(config.heads().qk_norm, QkNorm::kHead);
  EXPECT_FALSE(config.heads().interleaved);
}

// In llama.cpp the whole head turns where nothing is said, also in families that turn half of it elsewhere.
TEST_F(GgufConfig, WhatGlm4SaysOrHas) {
  const GgufBytes glm = llama("glm4moe").u32("glm4moe.expert_count", 8).u32("glm4moe.expert_used_count", 2);
  const auto with = [&](std::uint32_t groups) {
    GgufBytes file = glm;
    return file.u32("glm4moe.expert_feed_forward_length", 16)
        .u32("glm4moe.expert_gating_func", 2)
        .u32("glm4moe.expert_group_count", groups)
        .u32("glm4moe.expert_group_used_count", 1);
  };
  const ModelConfig config = read(with(4));
  EXPECT_EQ(config.heads().rotary_share, 1);
  EXPECT_EQ(config.heads().qk_norm, QkNorm::kNone);
  EXPECT_EQ(config.experts(0).count, 8);  // no layer is dense
  EXPECT_EQ(config.experts(0).router->groups, 4);
  EXPECT_EQ(config.experts(0).router->norm, RouterNorm::kNone);
  EXPECT_EQ(read(with(1), {"blk.0.attn_q_norm.weight"}).heads().qk_norm, QkNorm::kHead);
  EXPECT_EQ(read(with(1).u32("glm4moe.rope.dimension_count", 4)).heads().rotary_share, 0.5);
}

TEST_F(GgufConfig, OfGemma3) {
  GgufBytes file = llama("gemma3");
  file.u32("gemma3.attention.sliding_window", 8).f32("gemma3.rope.freq_base", 1e6f);
  EXPECT_EQ(read(file).attention(0).rope_theta, 1e4);
  EXPECT_EQ(read(file.f32("gemma3.rope.freq_base_swa", 500)).attention(0).rope_theta, 500);
}

TEST_F(GgufConfig, RefusesWhatAFamilyDoesNotCompute) {
  expect_refused(llama("minimax-m2").u32("minimax-m2.expert_gating_func", 1),
                 "minimax-m2.expert_gating_func: expected 2, which is what foe computes, got 1");
  expect_refused(llama("granite").flag("granite.rope.scaling.finetuned", false),
                 "granite.rope.scaling.finetuned: expected 1, which is what foe computes, got false");
  expect_refused(llama().f32("llama.rope.scaling.attn_factor", 2),
                 "llama.rope.scaling.attn_factor: expected 1 without factors of pairs, got 2");
}

TEST_F(GgufConfig, NumbersOfLayersMayBeAlike) {
  EXPECT_EQ(
      read(llama("llama", "attention.head_count_kv").i32s("llama.attention.head_count_kv", {4, 4})).heads().kv_heads,
      4);
  expect_refused(llama("llama", "attention.head_count_kv").i32s("llama.attention.head_count_kv", {4, 2}),
                 "llama.attention.head_count_kv: expected the same integer in every layer, got others");
  expect_refused(llama("llama", "attention.head_count_kv").f32s("llama.attention.head_count_kv", {1e20f}),
                 "llama.attention.head_count_kv: expected the same integer in every layer");
}

TEST_F(GgufConfig, EndsOfTextAreThoseOfTheFileAndOfTurns) {
  GgufBytes file = llama();
  file.texts("tokenizer.ggml.tokens", {"<s>", "</s>", "a", "<|im_end|>", "<|eot_id|>"})
      .i32s("tokenizer.ggml.token_type", {3, 3, 1, 3, 1})  // the last one is a word
      .u32("tokenizer.ggml.bos_token_id", 0)
      .u32("tokenizer.ggml.eos_token_id", 1);
  const ModelConfig config = read(file);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(1, 3));
  EXPECT_EQ(config.bos_token_id, 0);
}

// In gpt-oss' format, <|end|> ends a message and <|return|> the answer.
TEST_F(GgufConfig, AMessageInAnAnswerIsNoEnd) {
  GgufBytes file = llama();
  file.texts("tokenizer.ggml.tokens", {"<|end|>", "<|return|>"}).i32s("tokenizer.ggml.token_type", {3, 3});
  EXPECT_THAT(read(file).eos_token_ids, ElementsAre(1));
}

TEST_F(GgufConfig, RefusesWhatItDoesNotKnow) {
  expect_refused(llama("bloom"), "general.architecture: expected one of llama, ");
  expect_refused(GgufBytes(), "general.architecture: expected one of llama, ");
  expect_refused(llama().u32("llama.attention.something", 3),
                 "llama.attention.something: expected only keys that foe knows of this architecture");
  expect_refused(llama().u32("llama.attention.value_length", 3), "llama.attention.value_length: expected 8, the width");
  expect_refused(llama().u32("llama.rope.dimension_count", 9), "llama.rope.dimension_count: expected at most 8");
  expect_refused(llama().text("llama.rope.scaling.type", "dynamic"),
                 "llama.rope.scaling.type: expected none, linear or yarn, got 'dynamic'");
  expect_refused(llama("llama", "block_count"), "num_hidden_layers: expected a value, got none");
  expect_refused(llama("llama", "block_count").text("llama.block_count", "x"),
                 "llama.block_count: expected an integer");
  expect_refused(llama("llama", "attention.head_count").u32("llama.attention.head_count", 0), "num_attention_heads");
}

TEST_F(GgufConfig, RefusesAFileWithoutEmbedding) {
  const TempFolder folder;
  folder.write("m.gguf", llama().file());
  EXPECT_THAT([&] { load_model_config(folder / "m.gguf"); },
              ThrowsMessage<Error>(HasSubstr("token_embd.weight: expected a matrix, got none")));
}

TEST(GgufTensors, AreThoseOfTheModel) {
  for (const char* name : {"llama_types", "llama_k", "mixtral", "qwen3", "qwen3moe", "olmoe", "gpt_oss",
                           "granitemoeshared", "llama_shards-00002-of-00003"}) {
    const ModelConfig config = load_model_config(golden_gguf(name));
    const TensorFolder folder(golden_gguf(name));
    const StoredTensors stored(folder, config);
    std::set<std::string, std::less<>> used;
    for_each_tensor(stored.table(), [&](const ModelTensor& row, int index) {
      EXPECT_EQ(stored.find(row, index).tensor.shape, row.shape) << name << " " << row.name;
      for (std::string& tensor : stored.check(row, index)) used.insert(std::move(tensor));
    });
    EXPECT_EQ(used.size(), folder.names().size()) << name;
  }
}

TEST(GgufTensors, AMissingOneIsNamedAsInTheFile) {
  const ModelConfig config = load_model_config(golden_gguf("llama_k"));
  const TensorFolder folder(golden_gguf("qwen3"));
  const StoredTensors stored(folder, config);
  EXPECT_THAT([&] { stored.find(stored.table().at(TensorRole::kEmbedding)); },
              ThrowsMessage<Error>(HasSubstr("token_embd.weight: expected shape [64, 256], got [96, 64]")));
}

TEST(GgufShards, AreAllOrNone) {
  const TempFolder folder;
  const auto shard = [](int i) { return "llama_shards-0000" + std::to_string(i) + "-of-00003.gguf"; };
  const auto copy = [&](int from, const std::string& to) {
    std::filesystem::copy_file(FOE_SOURCE_DIR "/tests/golden/gguf/" + shard(from), folder / to,
                               std::filesystem::copy_options::overwrite_existing);
  };
  const auto refused = [&](const std::string& name, const std::string& message) {
    EXPECT_THAT([&] { TensorFolder(folder / name); }, ThrowsMessage<Error>(HasSubstr(message))) << name;
  };
  copy(1, shard(1));
  copy(2, shard(2));
  refused(shard(1), "expected all 3 shards in one folder, got no " + (folder / shard(3)));
  copy(2, shard(3));
  refused(shard(1), "expected a tensor in one of the shards, got it in two");
  copy(3, shard(3));
  EXPECT_EQ(TensorFolder(folder / shard(2)).files().size(), 3u);
  copy(1, "alone.gguf");
  refused("alone.gguf",
          "split.count: expected 1, as there are files, got 3: give it the name NAME-00001-of-00003.gguf");
  copy(1, "x-00000-of-00003.gguf");
  refused("x-00000-of-00003.gguf", "expected the name of a shard from 1 to its number of shards");
}

}  // namespace
}  // namespace foe
