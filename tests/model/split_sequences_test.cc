// Members that split sequences give the bits of one rank, and send what costs/wire_cost.h predicts.
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/ranks.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "costs/wire_cost.h"
#include "model/block_configs.h"
#include "model/forward.h"
#include "model/key_exchange.h"
#include "model/runner.h"
#include "placement/deal.h"
#include "random_model.h"

namespace foe {
namespace {

// Where each sequence ends in each of the steps: prompts that are cut into pieces, in chunks that begin amid a KV block
// and amid a pair of positions, and tokens that decode, which other ranks run in each step.
constexpr int kDealtSequences = 5;
constexpr int kStepEnds[][kDealtSequences] = {{133, 16, 1, 0, 40}, {134, 17, 2, 257, 41}, {300, 18, 3, 258, 42}};
constexpr int kMostDealt = 460;  // tokens of a step

Batch step_to_deal(int step, int vocab, int owners) {
  Batch batch;
  for (int s = 0, block = 0; s < kDealtSequences; ++s) {
    const std::vector<std::int32_t> tokens = random_tokens(300, vocab, s);
    std::vector<std::int32_t> blocks(19);
    std::iota(blocks.begin(), blocks.end(), block);
    block += static_cast<int>(blocks.size());
    const int begin = step == 0 ? 0 : kStepEnds[step - 1][s], end = kStepEnds[step][s];
    if (begin == end) continue;
    const int most_sampled = 40;  // keeps what is compared small
    const auto sample = s == 2                       ? Batch::Sample::kNone
                        : end - begin > most_sampled ? Batch::Sample::kLast
                                                     : Batch::Sample::kAll;
    batch.add_sequence(std::span(tokens).subspan(begin, end - begin), begin, blocks, sample,
                       s * owners / kDealtSequences, s % 3 == 0 ? 300 : 0);
  }
  return batch;
}

struct SplitWay {
  KvType kv_type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;
  ExchangeOptions exchange = {};
};

std::vector<float> run_split_steps(const RandomModel& folder, const PlanChoice& plan, Communicator& comm,
                                   const SplitWay& how = {}) {
  const Model model = load_model(folder.path(), plan, comm);
  RankGrid grid(model.placement, comm, how.exchange.overlap);
  ThreadPool pool(2);
  KvCache kv(model.own_layers(), 19 * kDealtSequences, model.kv_shape(how.kv_type, how.attention));
  Activations a(model, grid.across_groups(), kMostDealt, kMostDealt, how.exchange);
  std::vector<float> all;
  for (int step = 0; step < static_cast<int>(std::size(kStepEnds)); ++step) {
    const std::span<const float> logits =
        forward(model, step_to_deal(step, model.config.vocab_size, model.placement.owners()), kv, a, grid, pool)
            .whole_SV;
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

PlanChoice split_plan(Plan plan, int stages = 0) {
  return {plan, {}, stages, true};
}

class SplitSequences : public testing::TestWithParam<NamedConfig> {};

// Without groups ranks run plan ep; of a federated model several ranks share each group.
TEST_P(SplitSequences, GiveTheBitsOfOneRank) {
  const ModelConfig& config = GetParam().config;
  const RandomModel folder(config);
  const auto self = make_self_comm();
  const std::vector<float> expected = run_split_steps(folder, default_plan(config), *self);
  EXPECT_FALSE(expected.empty());
  const Plan plan = config.federated() ? Plan::kFoe : Plan::kEp;
  const int H = config.federated() ? config.expert_groups : 1;
  for (std::vector<int> nodes : {std::vector<int>(2 * H), std::vector<int>(3 * H)}) {
    if (nodes.size() == 3u * H) nodes.back() = 1;
    run_ranks(nodes, kTimeout, [&](Communicator& comm) {
      const std::vector<float> logits = run_split_steps(folder, split_plan(plan), comm);
      if (comm.rank() != 0) return;
      EXPECT_EQ(logits, expected) << comm.size() << " ranks";
    });
  }
}

std::vector<NamedConfig> split_variants() {
  std::vector<NamedConfig> all;
  for (const auto& some : {block_configs(), attention_configs(), routing_configs()})
    for (const NamedConfig& variant : some)
      if (!variant.config.dense()) all.push_back(variant);
  all.push_back({"moe", small_config()});
  all.push_back({"foe2", small_federated(2)});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Variants, SplitSequences, testing::ValuesIn(split_variants()),
                         [](const auto& variant) { return variant.param.name; });

TEST(SplitSequences, InEveryFormatOfTheCacheAndOfWhatTravels) {
  const RandomModel folder(small_config());
  const auto self = make_self_comm();
  const SplitWay ways[] = {{KvType::kF32},
                           {KvType::kInt8},
                           {KvType::kBF16, AttentionType::kBF16},
                           {.exchange = {.overlap = true}},
                           {.exchange = {.dispatch = Dispatch::kPerExpert, .overlap = true}}};
  for (const SplitWay& how : ways) {
    const std::vector<float> expected = run_split_steps(folder, Plan::kTp, *self, {how.kv_type, how.attention});
    for (const auto& nodes : std::vector<std::vector<int>>{{0, 0}, {0, 1}, {0, 0, 1, 1}})
      run_ranks(nodes, kTimeout, [&](Communicator& comm) {
        const std::vector<float> logits = run_split_steps(folder, split_plan(Plan::kEp), comm, how);
        if (comm.rank() != 0) return;
        EXPECT_EQ(logits, expected) << comm.size() << " ranks, " << to_string(how.kv_type) << ", "
                                    << to_string(how.attention) << (how.exchange.overlap ? ", halves" : "");
      });
  }
}

// Steps of several micro-batches, each of which is dealt by itself.
TEST(SplitSequences, InStagesToo) {
  const std::tuple<ModelConfig, Plan, std::vector<int>> jobs[] = {
      {small_config(), Plan::kEp, {0, 0, 0, 0}},
      {small_config(), Plan::kEp, {0, 0, 1, 1}},
      {small_federated(2), Plan::kFoe, {0, 0, 0, 0, 1, 1, 1, 1}}};
  for (const auto& [config, plan, nodes] : jobs) {
    const RandomModel folder(config);
    const auto self = make_self_comm();
    const std::vector<float> expected = run_split_steps(folder, default_plan(config), *self);
    run_ranks(nodes, kTimeout, [&, &plan = plan](Communicator& comm) {
      const std::vector<float> logits = run_split_steps(folder, split_plan(plan, 2), comm);
      if (comm.rank() != 0) return;
      EXPECT_EQ(logits, expected) << to_string(plan) << " on " << comm.size() << " ranks";
    });
  }
}

TEST(SplitSequences, OneRankHasNothingToSplit) {
  const RandomModel folder(small_config());
  const auto self = make_self_comm();
  const Model model = load_model(folder.path(), split_plan(Plan::kEp), *self);
  EXPECT_FALSE(model.placement.split_sequences);
  EXPECT_EQ(run_split_steps(folder, split_plan(Plan::kEp), *self), run_split_steps(folder, Plan::kEp, *self));
}

// What each rank sends of a batch whose sequences have the owners that deal_rows() would choose, if they are split or
// not.
CommCounter sent_of_step(const Model& model, const Batch& batch, KvType kv_type, Communicator& comm) {
  RankGrid grid(model.placement, comm);
  ThreadPool pool(1);
  KvCache kv(model.own_layers(), 64, model.kv_shape(kv_type));
  Activations a(model, grid.across_groups(), batch.num_tokens(), batch.num_tokens());
  const CommCounters before = comm.counters();
  forward(model, batch, kv, a, grid, pool);
  const CommCounters all = comm.counters() - before;
  EXPECT_EQ(all.send.calls, 0u);
  return all.all_to_all;
}

// A layer has one exchange more, of the keys and values of every row to every other member, and the same ones as
// before.
TEST(SplitSequences, SendWhatIsPredicted) {
  for (const ModelConfig& config : {small_config(), small_federated(2)})
    for (const KvType kv_type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
      const RandomModel folder(config);
      const bool federated = config.federated();
      const std::vector<int> nodes = federated ? std::vector<int>{0, 0, 1, 1} : std::vector<int>{0, 0, 1};
      const int members = federated ? 2 : 3, each = 4;
      run_ranks(nodes, kTimeout, [&](Communicator& comm) {
        const Plan plan = federated ? Plan::kFoe : Plan::kEp;
        const Model parted = load_model(folder.path(), split_plan(plan), comm),
                    whole = load_model(folder.path(), plan, comm);
        Batch to_split, owned;
        for (std::int32_t s = 0; s < members * each; ++s) {
          // Equal rows are dealt in turn.
          const auto block = std::vector<std::int32_t>{s};
          to_split.add_sequence(std::vector<std::int32_t>{s}, 0, block, Batch::Sample::kLast);
          owned.add_sequence(std::vector<std::int32_t>{s % each * members + s / each}, 0, block, Batch::Sample::kLast,
                             s / each);
        }
        const CommCounter more = sent_of_step(parted, to_split, kv_type, comm),
                          base = sent_of_step(whole, owned, kv_type, comm);
        const WireCost with = decode_wire_cost(config, parted.placement, nodes, comm.rank(), {}, each, 0, kv_type);
        const WireCost without = decode_wire_cost(config, whole.placement, nodes, comm.rank(), {}, each, 0, kv_type);
        const int L = config.num_layers();
        EXPECT_EQ(without.key_bytes, 0u);
        EXPECT_EQ(with.all_to_all_calls, without.all_to_all_calls + L);
        EXPECT_EQ(more.calls, static_cast<std::uint64_t>(with.all_to_all_calls));
        EXPECT_EQ(more.messages, more.calls * (members - 1));
        EXPECT_EQ(more.bytes - base.bytes, with.key_bytes);
        const AttentionConfig& a = config.heads();
        const int width = a.kv_heads / (federated ? 2 : 1) * (a.key_width + a.head_value_width());
        EXPECT_EQ(with.key_bytes, 1u * L * each * (members - 1) * width * (kv_type == KvType::kBF16 ? 2 : 4));
      });
    }
}

// One prompt: the ranks run as many rows, and each sends the keys and values of its own ones.
TEST(SplitSequences, EachSendsItsPartOfAPrompt) {
  const ModelConfig config = small_config();
  const RandomModel folder(config);
  run_ranks(2, kTimeout, [&](Communicator& comm) {
    const Model model = load_model(folder.path(), split_plan(Plan::kEp), comm);
    RankGrid grid(model.placement, comm);
    ThreadPool pool(1);
    KvCache kv(model.own_layers(), 16, model.kv_shape(KvType::kBF16));
    Activations a(model, grid.across_groups(), 256, 1);
    std::vector<std::int32_t> blocks(16);
    std::iota(blocks.begin(), blocks.end(), 0);
    Batch batch;
    batch.add_sequence(random_tokens(256, config.vocab_size, 1), 0, blocks, Batch::Sample::kLast);
    forward(model, batch, kv, a, grid, pool);
    const std::size_t row = model.kv_shape(KvType::kBF16).position_wire_bytes();
    EXPECT_EQ(a.states.front().keys->bytes_to, std::vector<std::size_t>(2, 128 * row));
    // Four experts for each row of two layers, and in the last one for the row that is sampled.
    EXPECT_EQ(a.stats.load.selected, 2 * 128 * 4 + (comm.rank() == 0 ? 4 : 0));
  });
}

TEST(KeyExchange, RefusesTheRowsOfAnotherBatch) {
  const KvShape shape{.kv_heads = 2, .key_width = 4, .value_width = 4};
  ThreadPool pool(1);
  const std::vector<std::int32_t> blocks{0};
  Batch batch;
  batch.add_sequence(std::vector<std::int32_t>{1, 2, 3}, 0, blocks, Batch::Sample::kNone, 0);
  batch.add_sequence(std::vector<std::int32_t>{1}, 0, blocks, Batch::Sample::kNone, 1);
  std::vector<float> k(4 * 8), v(4 * 8);
  KeyExchange x(0, 2);
  pack_keys(x, pool, shape, batch, k.data(), v.data());
  EXPECT_EQ(x.bytes_to, (std::vector<std::size_t>{96, 96}));
  x.bytes_from = {96, 64};
  EXPECT_THAT(
      [&] { take_keys(x, pool, shape, batch, k.data(), v.data()); },
      testing::ThrowsMessage<Error>("rank 0: expected 32 bytes of keys and values from rank 1, for 1 rows, got 64"));
}

}  // namespace
}  // namespace foe
