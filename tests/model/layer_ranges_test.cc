// Steps that are cut by layers: however a batch's layers are split over steps, the bits are those of one step through
// all of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/ranks.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "model/forward.h"
#include "random_model.h"

namespace foe {
namespace {

using Splits = std::vector<Range>;

constexpr int kLayers = 4;
const Splits kWhole = {kAllLayers};
const Splits kSplits[] = {{{0, kLayers}},
                          {{0, 1}, {1, kLayers}},
                          {{0, 3}, {3, kAllLayers.end}},
                          {{0, 2}, {2, 3}, {3, kLayers}},
                          {{0, 1}, {1, 2}, {2, 3}, {3, 4}}};

// One rank's runnable model.
struct Rank {
  Model model;
  RankGrid grid;
  ThreadPool pool{2};
  KvCache kv;
  Activations a;

  Rank(const RandomModel& folder, Plan plan, Communicator& comm, const ExchangeOptions& options)
      : model(load_model(folder.path(), plan, comm)),
        grid(model.placement, comm, options.overlap),
        kv(model.config.num_layers(), 64, model.kv_shape(KvType::kBF16)),
        a(model, grid.across_groups(), 300, 300, options) {}

  Logits run(const Batch& batch) { return forward(model, batch, kv, a, grid, pool); }

  // The logits of a batch whose layers run in several steps, of which only the last may give any.
  std::vector<float> run(Batch batch, const Splits& splits) {
    std::vector<float> logits;
    for (const Range layers : splits) {
      batch.layers = layers;
      const Logits part = run(batch);
      EXPECT_TRUE(logits.empty());
      logits.assign(part.whole_SV.begin(), part.whole_SV.end());
    }
    return logits;
  }
};

struct Sequence {
  int length;
  std::vector<int> ends;  // of its chunks, one for each step
};

// Prompts in one chunk and in several, sequences that decode, and rows that nobody samples. The second step has enough
// tokens for two halves on four ranks, too, and a sequence that is cut by them.
const Sequence kSequences[] = {
    {40, {38, 39, 40}}, {200, {30, 190, 200}}, {3, {1, 2, 3}}, {90, {0, 88, 89}}, {25, {25, 25, 25}}};

Batch batch_of_ranges(int step, int vocab, int owners) {
  Batch batch;
  std::int32_t block = 0;
  for (int s = 0; s < static_cast<int>(std::size(kSequences)); ++s) {
    const Sequence& sequence = kSequences[s];
    std::vector<std::int32_t> blocks;
    for (int i = 0; i * kKvBlock < sequence.length; ++i) blocks.push_back(block++);
    const int begin = step == 0 ? 0 : sequence.ends[step - 1], end = sequence.ends[step];
    if (begin == end) continue;
    const std::vector<std::int32_t> tokens = random_tokens(sequence.length, vocab, s);
    batch.add_sequence(std::span(tokens).subspan(begin, end - begin), begin, blocks,
                       s == 1                ? Batch::Sample::kAll
                       : s == 3 && step == 1 ? Batch::Sample::kNone
                                             : Batch::Sample::kLast,
                       s * owners / static_cast<int>(std::size(kSequences)));
  }
  return batch;
}

std::vector<float> run_ranges_of(const RandomModel& folder, Plan plan, Communicator& comm,
                                 const ExchangeOptions& options, const Splits& splits) {
  Rank rank(folder, plan, comm, options);
  std::vector<float> all;
  for (int step = 0; step < 3; ++step) {
    const std::vector<float> logits =
        rank.run(batch_of_ranges(step, folder.config().vocab_size, rank.model.placement.members), splits);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

struct RangesVariant {
  std::string name;
  ModelConfig config;
};

std::vector<RangesVariant> ranges_variants() {
  ModelConfig full = small_config(), moge = small_config(), dense = small_config(), mean = small_federated(4);
  set(full, &AttentionConfig::qk_norm, QkNorm::kFull);
  set(full, &RouterConfig::norm, RouterNorm::kSelected);
  moge.expert_groups = 4;
  make_dense(dense);
  mean.group_sync = GroupSync::kMean;
  set(mean, &AttentionConfig::qk_norm, QkNorm::kHead);
  std::vector<RangesVariant> all = {
      {"moe_full", full},  {"moge", moge},
      {"dense", dense},    {"foe2", small_federated(2)},
      {"foe4_mean", mean}, {"every_parameter_of_attention", attention_configs()[7].config}};
  for (RangesVariant& v : all) set_layers(v.config, kLayers);
  return all;
}

class LayerRanges : public testing::TestWithParam<RangesVariant> {};

TEST_P(LayerRanges, GiveTheBitsOfAllLayersAtOnce) {
  const RandomModel folder(GetParam().config);
  const Plan plan = default_plan(folder.config());
  const auto self = make_self_comm();
  const std::vector<float> expected = run_ranges_of(folder, plan, *self, {}, kWhole);
  // All 200 rows of the second sequence, and eight last ones of the others.
  ASSERT_EQ(expected.size(), 208u * folder.config().vocab_size);
  for (const Splits& splits : kSplits)
    for (const bool overlap : {false, true})
      EXPECT_EQ(run_ranges_of(folder, plan, *self, {.overlap = overlap}, splits), expected)
          << splits.size() << " ranges, overlap " << overlap;
}

TEST_P(LayerRanges, GiveTheSameBitsOnSeveralRanks) {
  const RandomModel folder(GetParam().config);
  const ModelConfig& c = folder.config();
  const auto self = make_self_comm();
  const std::vector<float> expected = run_ranges_of(folder, default_plan(c), *self, {}, kWhole);
  std::vector<std::pair<Plan, int>> jobs = {{default_plan(c), 2}, {Plan::kPp, 2}, {Plan::kPp, 3}};
  if (c.federated()) jobs.push_back({Plan::kFoe, 2 * c.expert_groups + 1});  // groups of two ranks, and one idle rank
  if (!c.federated() && !c.dense()) jobs.push_back({Plan::kEp, 4});
  for (const auto& [plan_of_job, ranks] : jobs)
    for (const bool overlap : {false, true}) {
      const Plan plan = plan_of_job;  // a lambda may capture it
      if (plan == Plan::kPp && overlap) continue;
      run_ranks(ranks, 60, [&](Communicator& comm) {
        const std::vector<float> logits = run_ranges_of(folder, plan, comm, {.overlap = overlap}, kSplits[3]);
        if (comm.rank() != 0) return;
        EXPECT_EQ(logits, expected) << to_string(plan) << ", overlap " << overlap;
      });
    }
}

INSTANTIATE_TEST_SUITE_P(Variants, LayerRanges, testing::ValuesIn(ranges_variants()),
                         [](const auto& variant) { return variant.param.name; });

TEST(LayerRanges, ABatchContinuesOnlyTheOneBeforeIt) {
  ModelConfig config = small_config();
  set_layers(config, kLayers);
  const RandomModel folder(config);
  const auto self = make_self_comm();
  Rank rank(folder, Plan::kTp, *self, {});
  const auto refusal = [&](Batch batch, Range layers) {
    batch.layers = layers;
    return error_of([&] { rank.run(batch); });
  };
  Batch batch = batch_of_ranges(0, config.vocab_size, 1), other = batch_of_ranges(2, config.vocab_size, 1);
  EXPECT_EQ(
      refusal(batch, {1, 2}),
      fmt::format("batch: expected to continue with 0 rows at layer 0, got {} rows at layer 1", batch.num_tokens()));
  const std::vector<float> expected = rank.run(batch, kWhole);
  batch.layers = {0, 2};
  rank.run(batch);
  EXPECT_EQ(
      refusal(batch, {3, 4}),
      fmt::format("batch: expected to continue with {0} rows at layer 2, got {0} rows at layer 3", batch.num_tokens()));
  EXPECT_EQ(refusal(other, {2, 4}),
            fmt::format("batch: expected to continue with {} rows at layer 2, got {} rows at layer 2",
                        batch.num_tokens(), other.num_tokens()));
  EXPECT_EQ(rank.run(batch, {{2, 4}}), expected);  // what was refused has changed nothing
  EXPECT_EQ(
      refusal(batch, {3, 4}),
      fmt::format("batch: expected to continue with {0} rows at layer 0, got {0} rows at layer 3", batch.num_tokens()));
}

}  // namespace
}  // namespace foe
