// The invariants of the forward pass: equal bits however the tokens are batched, chunked, threaded and spread over
// ranks. That the bits are also right is tests/oracle/logits_test.py's business.
#include "model/forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/sanitized.h"
#include "comm/ranks.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "core/sum_blocks.h"
#include "model/block_configs.h"
#include "random_model.h"
#include "runner.h"
#include "weights/convert.h"
#include "weights/experts_of.h"

namespace foe {
namespace {

Plan plan_of(const ModelConfig& c) {
  return default_plan(c);
}

struct Variant {
  std::string name;
  ModelConfig config;
  FormatChoice formats = {};
};

void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

Model load(const RandomModel& folder, Communicator& comm, const FormatChoice& formats) {
  return load_model(folder.path(), plan_of(folder.config()), comm, formats);
}

// As wide as it takes for every format to have several blocks: 8 KV heads with 2 query heads of 32 each.
ModelConfig wide_forward_config() {
  ModelConfig c = small_config();
  set(c, &AttentionConfig::key_width, 32);
  set(c, &AttentionConfig::query_heads, 16);
  set(c, &AttentionConfig::kv_heads, 8);
  return c;
}

ModelConfig dense_config(int width) {
  ModelConfig c = wide_forward_config();
  make_dense(c);
  set(c, &ExpertsConfig::width, width);
  return c;
}

// Numbers of ranks that a model's default plan takes: more than there are blocks, too.
std::vector<int> numbers_of_ranks(const ModelConfig& c) {
  const int heads = head_blocks(c).count(),
            experts = c.dense() ? width_blocks(c, 0).count() : expert_table(c, 0).with_rows();
  const int most = c.federated() ? c.expert_groups : std::max({heads, experts, (c.vocab_size + 15) / 16});
  std::vector<int> ranks;
  for (const int n : kSanitized ? std::vector{2} : std::vector{2, 3, 4, 5, 7, 8, 11})
    if (n <= most) ranks.push_back(n);
  return ranks;
}

std::vector<Variant> variants() {
  std::vector<Variant> all;
  const auto add = [&](std::string name, ModelConfig c, auto&& change, FormatChoice formats = {}) {
    // A sanitizer sees all of a format in the models of MoE.
    if (kSanitized && formats.experts && name.rfind("moe_", 0) != 0) return;
    change(c);
    all.push_back({std::move(name), c, formats});
  };
  add("moe", small_config(), [](ModelConfig&) {});
  add("moe_full_norm_topk", small_config(), [](ModelConfig& c) {
    set(c, &AttentionConfig::qk_norm, QkNorm::kFull);
    set(c, &RouterConfig::norm, RouterNorm::kSelected);
  });
  add("moge", small_config(), [](ModelConfig& c) { c.expert_groups = 4; });
  add("moge_of_3", small_config(), [](ModelConfig& c) {  // the experts' tree has gaps
    c.expert_groups = 4;
    set(c, &ExpertsConfig::count, 12);
  });
  add("dense", small_config(), [](ModelConfig& c) { make_dense(c); });
  add("dense_wide", dense_config(1100), [](ModelConfig& c) { set(c, &AttentionConfig::qk_norm, QkNorm::kFull); });
  add("dense_heads_13", dense_config(300), [](ModelConfig& c) {  // more than there are blocks
    set(c, &AttentionConfig::query_heads, 26);
    set(c, &AttentionConfig::kv_heads, 13);
    set(c, &AttentionConfig::key_width, 16);
    set(c, &AttentionConfig::qk_norm, QkNorm::kHead);
  });
  add("moe_one_kv_head", small_config(), [](ModelConfig& c) { set(c, &AttentionConfig::kv_heads, 1); });
  add("foe4_sum", small_federated(4), [](ModelConfig& c) { set(c, &AttentionConfig::qk_norm, QkNorm::kHead); });
  add("foe4_mean_tied", small_federated(4), [](ModelConfig& c) {
    c.group_sync = GroupSync::kMean;
    c.tie_word_embeddings = true;
    set(c, &AttentionConfig::rope_factor, 4);
  });
  add("foe2_full", small_federated(2), [](ModelConfig& c) { set(c, &AttentionConfig::qk_norm, QkNorm::kFull); });
  const auto nothing = [](ModelConfig&) {};
  add("moe_int8", small_config(), nothing, FormatChoice::all(WeightFormat::kInt8));
  add("moe_int4", small_config(), nothing, FormatChoice::all(WeightFormat::kInt4));
  add("moe_bf16xbf16", small_config(), nothing, FormatChoice::all(WeightFormat::kBF16xBF16));
  add("foe2_bf16xbf16", small_federated(2), nothing, FormatChoice::all(WeightFormat::kBF16xBF16));
  add("foe4_int8", small_federated(4), nothing, FormatChoice::all(WeightFormat::kInt8));
  add("foe2_int4", small_federated(2), nothing, FormatChoice::all(WeightFormat::kInt4));
  for (const WeightFormat format :
       {WeightFormat::kBF16, WeightFormat::kBF16xBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    const std::string name = to_string(format);
    const auto full = [](ModelConfig& c) { set(c, &AttentionConfig::qk_norm, QkNorm::kFull); };
    add("moe_wide_" + name, wide_forward_config(), full, FormatChoice::all(format));
    add("dense_wide_" + name, dense_config(1100), nothing, FormatChoice::all(format));
  }
  // Whose blocks of heads are whole blocks of the format.
  add(
      "moe_wider_int8", wide_forward_config(), [](ModelConfig& c) { set(c, &AttentionConfig::key_width, 64); },
      FormatChoice::all(WeightFormat::kInt8));
  for (const NamedConfig& routing : routing_configs()) add(routing.name, routing.config, nothing);
  for (const NamedConfig& attention : attention_configs()) add(attention.name, attention.config, nothing);
  add("every_parameter_int8", attention_configs()[7].config, nothing, FormatChoice::all(WeightFormat::kInt8));
  add("foe2_every_parameter_bf16xbf16", attention_configs()[9].config, nothing,
      FormatChoice::all(WeightFormat::kBF16xBF16));
  for (const NamedConfig& blocks : block_configs()) {
    add(blocks.name, blocks.config, nothing);
    if (!blocks.config.experts(0).bias || blocks.config.federated()) continue;
    for (const WeightFormat format : {WeightFormat::kBF16xBF16, WeightFormat::kInt8, WeightFormat::kInt4})
      add(blocks.name + "_" + to_string(format), blocks.config, nothing, FormatChoice::all(format));
  }
  add("dense_first_int8", block_configs()[0].config, nothing, FormatChoice::all(WeightFormat::kInt8));
  add("deepseek_v3_int8", routing_configs()[0].config, nothing, FormatChoice::all(WeightFormat::kInt8));
  add("foe4_mixed", small_federated(4), nothing, {WeightFormat::kInt8, WeightFormat::kInt4, {}});
  return all;
}

class ForwardTest : public testing::TestWithParam<Variant> {};

TEST_P(ForwardTest, ChunksAndThreadsGiveTheSameBits) {
  const RandomModel folder(GetParam().config);
  const auto comm = make_self_comm();
  const int length = kSanitized ? 150 : 300;
  const std::vector<std::int32_t> tokens = random_tokens(length, folder.config().vocab_size, 3);
  Runner one(load(folder, *comm, GetParam().formats), *comm, 1);
  const std::vector<float> whole = in_chunks(one, tokens, length);
  ASSERT_EQ(whole.size(), tokens.size() * folder.config().vocab_size);
  for (const float x : whole) ASSERT_TRUE(std::isfinite(x));
  for (const int chunk : kSanitized ? std::vector{7, 130} : std::vector{1, 7, 64, 130})
    EXPECT_EQ(in_chunks(one, tokens, chunk), whole) << "chunks of " << chunk;
  for (const int threads : kSanitized ? std::vector{3} : std::vector{2, 3}) {
    Runner several(load(folder, *comm, GetParam().formats), *comm, threads);
    EXPECT_EQ(in_chunks(several, tokens, 97), whole) << threads << " threads";
  }
}

TEST_P(ForwardTest, ABatchGivesWhatItsSequencesGiveAlone) {
  const RandomModel folder(GetParam().config);
  const auto comm = make_self_comm();
  Runner runner(load(folder, *comm, GetParam().formats), *comm, 2);
  const std::vector<int> lengths{1, 17, 40, 3, 128};
  const int V = folder.config().vocab_size;
  std::vector<std::vector<float>> alone;
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    Batch batch;
    batch.add_sequence(random_tokens(lengths[s], V, s), 0, blocks_of(0, lengths[s]), Batch::Sample::kLast);
    alone.push_back(runner.run(batch));
  }
  Batch together;
  for (std::size_t s = 0; s < lengths.size(); ++s)
    together.add_sequence(random_tokens(lengths[s], V, s), 0, blocks_of(static_cast<int>(s), lengths[s]),
                          Batch::Sample::kLast);
  const std::vector<float> logits = runner.run(together);
  for (std::size_t s = 0; s < lengths.size(); ++s)
    EXPECT_EQ(std::vector<float>(logits.begin() + s * V, logits.begin() + (s + 1) * V), alone[s]) << "sequence " << s;
}

TEST_P(ForwardTest, AnyNumberOfRanksGivesTheBitsOfOne) {
  const RandomModel folder(GetParam().config);
  const ModelConfig& c = folder.config();
  const std::vector<std::int32_t> tokens = random_tokens(150, c.vocab_size, 5);
  const auto self = make_self_comm();
  Runner alone(load(folder, *self, GetParam().formats), *self, 1), exact(load(folder, *self, {}), *self, 1);
  const std::vector<float> expected = in_chunks(alone, tokens, 150);
  EXPECT_EQ(expected != in_chunks(exact, tokens, 150), GetParam().formats.experts.has_value());
  for (const int ranks : numbers_of_ranks(c)) {
    std::vector<float> logits;
    run_ranks(ranks, 60, [&](Communicator& comm) {
      // Threads that wait for one another while others compute on the same cores take long.
      Runner runner(load(folder, comm, GetParam().formats), comm, ranks < 4 && !kSanitized ? 2 : 1);
      const std::vector<float> mine = in_chunks(runner, tokens, 64);
      if (comm.rank() == 0)
        logits = mine;
      else
        EXPECT_TRUE(mine.empty());
    });
    EXPECT_EQ(logits, expected) << ranks << " ranks";
  }
}

const std::vector<std::vector<int>> kNodes = {{0, 0, 1}, {0, 1, 1, 1}, {0, 0, 1, 1, 2}};

// The ranks of each node add their parts before nodes exchange what they have.
TEST_P(ForwardTest, SumsInTwoLevelsGiveTheBitsOfOneRank) {
  const RandomModel folder(GetParam().config);
  const ModelConfig& c = folder.config();
  const std::vector<std::int32_t> tokens = random_tokens(150, c.vocab_size, 5);
  const auto self = make_self_comm();
  Runner alone(load(folder, *self, GetParam().formats), *self, 1);
  const std::vector<float> expected = in_chunks(alone, tokens, 150);
  for (const std::vector<int>& nodes : kNodes) {
    if (c.federated() && static_cast<int>(nodes.size()) > c.expert_groups) continue;
    run_ranks(nodes, 60, [&](Communicator& comm) {
      Runner runner(load(folder, comm, GetParam().formats), comm, 1);
      const std::vector<float> logits = in_chunks(runner, tokens, 64);
      if (comm.rank() != 0) return;
      EXPECT_EQ(logits, expected) << nodes.size() << " ranks";
    });
  }
}

TEST_P(ForwardTest, SumsPerStep) {
  const RandomModel folder(GetParam().config);
  const ModelConfig& c = folder.config();
  const int ranks = 2, L = c.num_layers();
  run_ranks(ranks, 60, [&](Communicator& comm) {
    Runner runner(load(folder, comm, {}), comm, 1);
    for (const int tokens : {1, 33}) {
      const CommCounters before = comm.counters();
      Batch batch;
      batch.add_sequence(random_tokens(tokens, c.vocab_size, 1), 0, blocks_of(0, tokens), Batch::Sample::kLast);
      runner.run(batch);
      const CommCounters after = comm.counters();
      const int split_norms = !c.federated() && c.heads().qk_norm == QkNorm::kFull ? L : 0;
      EXPECT_EQ((after.sum - before.sum).calls,
                static_cast<std::uint64_t>(c.federated() ? c.group_sums() : 2 * L + split_norms));
      EXPECT_EQ((after.gather - before.gather).calls, 1u);
      EXPECT_EQ((after.broadcast - before.broadcast).calls, 0u);  // the engine's
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Variants, ForwardTest, testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name; });

// Packed in a folder once, or quantised by each rank at load.
TEST(Forward, AConvertedModelGivesTheSameBitsOnAnyNumberOfRanks) {
  ModelConfig dense = dense_config(1100), moe = small_config();
  set(moe, &AttentionConfig::key_width, 16);  // whole panels
  ModelConfig mixed = moe;
  mixed.experts(0) = dense_experts(1100);
  mixed.layers[1].blocks[0].norm = BlockNorm::kBoth;
  mixed.layers[2].blocks[1].norm = BlockNorm::kAfter;
  ModelConfig biased = moe;
  for_each_attention(biased, [](AttentionConfig& a) { a.qkv_bias = a.output_bias = true, a.window = 20; });
  for (const ModelConfig& config : {dense, moe, mixed, biased})
    for (const WeightFormat format :
         {WeightFormat::kBF16, WeightFormat::kBF16xBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
      const RandomModel folder(config);
      const TempFolder out;
      ThreadPool pool(2);
      convert_model(pool, folder.path(), config, FormatChoice::all(format), out / "model", [](auto, auto) {});
      const std::vector<std::int32_t> tokens = random_tokens(60, config.vocab_size, 4);
      const auto self = make_self_comm();
      Runner alone(load(folder, *self, FormatChoice::all(format)), *self, 1);
      const std::vector<float> expected = in_chunks(alone, tokens, 60);
      for (const int ranks : {1, 2, 3, 4})
        run_ranks(ranks, 60, [&](Communicator& comm) {
          Runner runner(out / "model", Plan::kTp, comm);
          const std::vector<float> logits = in_chunks(runner, tokens, 60);
          if (comm.rank() != 0) return;
          EXPECT_EQ(logits, expected) << to_string(format) << ", " << ranks << " ranks";
        });
    }
}

TEST(Forward, OneGroupIsAnOrdinaryMoe) {
  ModelConfig federated = small_config();
  federated.residual = Residual::kFederated;
  const RandomModel a(small_config()), b(federated);
  const auto comm = make_self_comm();
  Runner moe(a.path(), Plan::kTp, *comm), foe(b.path(), Plan::kTp, *comm);
  const std::vector<std::int32_t> tokens = random_tokens(50, a.config().vocab_size, 2);
  EXPECT_EQ(in_chunks(foe, tokens, 50), in_chunks(moe, tokens, 50));
}

TEST(Forward, ABatchWithoutSampledRowsGivesNoLogits) {
  const RandomModel folder(small_federated(4));
  const auto comm = make_self_comm();
  Runner runner(folder.path(), Plan::kFoe, *comm);
  Batch batch;
  batch.add_sequence(random_tokens(20, 70, 1), 0, blocks_of(0, 20), Batch::Sample::kNone);
  EXPECT_TRUE(runner.run(batch).empty());
}

TEST(Forward, RefusesMoreSelectedExpertsThanASumTakesIn) {
  ModelConfig c = small_config();
  set(c, &ExpertsConfig::count, 65);
  set(c, &ExpertsConfig::per_token, 65);
  const RandomModel folder(c);
  EXPECT_THAT([&] { load_model(folder.path(), Plan::kTp, *make_self_comm()); },
              testing::ThrowsMessage<Error>("num_experts_per_tok: expected at most 64, got 65"));
}

TEST(Forward, WeightsInBf16AreTheRoundedOnes) {
  const RandomModel folder(small_config());
  const auto comm = make_self_comm();
  Model model = load_model(folder.path(), Plan::kTp, *comm, FormatChoice::all(WeightFormat::kBF16));
  EXPECT_EQ(experts_of(model.weights, 0)[0].down.format, WeightFormat::kBF16);
  EXPECT_EQ(model.weights.layers[0].router_ED.format, WeightFormat::kF32);
  EXPECT_EQ(load_model(folder.path(), Plan::kTp, *make_self_comm()).weights.head_vD.format, WeightFormat::kF32);
}

}  // namespace
}  // namespace foe
