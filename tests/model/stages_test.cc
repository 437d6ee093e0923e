// Plan pp: ranks that run some of the layers each give the bits of one rank, hold only what their layers need, and send
// what costs/wire_cost.h predicts.
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
#include "model/runner.h"
#include "random_model.h"

namespace foe {
namespace {

// Prompts in two chunks, the second of which has enough tokens for several micro-batches, one of which begins amid a
// sequence, and sequences of a token.
constexpr int kPrompts[] = {17, 1, 250, 3, 100, 5};

Batch prompts_batch(int chunk, int vocab, int owners) {
  Batch batch;
  for (int s = 0, block = 0; s < static_cast<int>(std::size(kPrompts)); ++s) {
    const std::vector<std::int32_t> tokens = random_tokens(kPrompts[s], vocab, s);
    std::vector<std::int32_t> blocks((kPrompts[s] + kKvBlock - 1) / kKvBlock);
    std::iota(blocks.begin(), blocks.end(), block);
    block += static_cast<int>(blocks.size());
    const int cut = kPrompts[s] / 5, begin = chunk == 0 ? 0 : cut, end = chunk == 0 ? cut : kPrompts[s];
    if (begin < end)
      batch.add_sequence(std::span(tokens).subspan(begin, end - begin), begin, blocks,
                         s % 2 == 0 ? Batch::Sample::kAll : Batch::Sample::kLast,
                         s * owners / static_cast<int>(std::size(kPrompts)));
  }
  return batch;
}

std::vector<float> run_prompts(const std::string& path, const PlanChoice& plan, Communicator& comm,
                               const ExchangeOptions& options = {}) {
  const Model model = load_model(path, plan, comm);
  RankGrid grid(model.placement, comm, options.overlap);
  ThreadPool pool(2);
  KvCache kv(model.own_layers(), 32, model.kv_shape(KvType::kBF16));
  Activations a(model, grid.across_groups(), 400, 400, options);
  std::vector<float> all;
  for (const int chunk : {0, 1}) {
    const std::span<const float> logits =
        forward(model, prompts_batch(chunk, model.config.vocab_size, model.placement.members), kv, a, grid, pool)
            .whole_SV;
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

// Of models with three layers.
class Stages : public testing::TestWithParam<NamedConfig> {};

TEST_P(Stages, GiveTheBitsOfOneRank) {
  const RandomModel folder(GetParam().config);
  const auto self = make_self_comm();
  const std::vector<float> expected = run_prompts(folder.path(), default_plan(folder.config()), *self);
  EXPECT_EQ(run_prompts(folder.path(), Plan::kPp, *self), expected) << "one stage";
  const std::pair<PlanChoice, std::vector<int>> jobs[] = {
      {{Plan::kPp, {1, 2}}, {0, 0}}, {{Plan::kPp, {2, 1}}, {0, 1}}, {Plan::kPp, {0, 0, 1}}};
  for (const auto& [choice, nodes] : jobs)
    run_ranks(nodes, 60, [&, &plan = choice](Communicator& comm) {
      const std::vector<float> logits = run_prompts(folder.path(), plan, comm);
      if (comm.rank() != 0) return;
      EXPECT_EQ(logits, expected) << comm.size() << " ranks";
    });
}

std::vector<NamedConfig> stages_variants() {
  std::vector<NamedConfig> all = block_configs();
  for (const auto& some : {attention_configs(), routing_configs()}) all.insert(all.end(), some.begin(), some.end());
  NamedConfig tied{"tied", small_config()}, mean{"foe4_mean", small_federated(4)};
  tied.config.tie_word_embeddings = true;
  mean.config.group_sync = GroupSync::kMean;
  all.insert(all.end(), {tied, mean});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Variants, Stages, testing::ValuesIn(stages_variants()),
                         [](const auto& variant) { return variant.param.name; });

// Stages of several ranks, which share their layers under another plan.
TEST(Stages, OfSeveralRanksGiveTheBitsOfOne) {
  ModelConfig full = small_config();
  set(full, &AttentionConfig::qk_norm, QkNorm::kFull);
  const std::tuple<ModelConfig, PlanChoice, std::vector<int>> jobs[] = {
      {full, {Plan::kTp, {}, 2}, {0, 0, 0, 0}},
      {full, {Plan::kTp, {1, 2}}, {0, 0, 0, 1, 1, 1}},
      {small_config(), {Plan::kEp, {2, 1}}, {0, 0, 1, 1}},
      {routing_configs()[8].config, {Plan::kEp, {}, 3}, {0, 0, 0, 0, 0, 0}},
      {small_federated(4), {Plan::kFoe, {}, 2}, {0, 0, 1, 1}},
      {small_federated(4), {Plan::kFoe, {1, 2}}, {0, 0, 0, 0, 0, 0}},
      {small_federated(2), {Plan::kFoe, {}, 2}, {0, 0, 0, 1, 1, 1, 1, 1, 2, 2}},  // two ranks for each group, one idle
      {block_configs()[10].config, {Plan::kFoe, {}, 3}, {0, 0, 0, 0, 0, 0}}};
  for (const auto& [config, choice, nodes] : jobs) {
    const RandomModel folder(config);
    const auto self = make_self_comm();
    const std::vector<float> expected = run_prompts(folder.path(), default_plan(config), *self);
    run_ranks(nodes, 60, [&, &plan = choice](Communicator& comm) {
      const std::vector<float> logits = run_prompts(folder.path(), plan, comm);
      if (comm.rank() != 0) return;
      EXPECT_EQ(logits, expected) << to_string(plan.plan) << " on " << comm.size() << " ranks";
    });
  }
}

// A lossy wire rounds what stages pass, and nothing else: with one stage nothing is passed.
TEST(Stages, ALossyWireRoundsWhatIsPassed) {
  const RandomModel folder(small_config());
  const auto self = make_self_comm();
  const std::vector<float> exact = run_prompts(folder.path(), Plan::kTp, *self);
  for (const Wire wire : {Wire::kBF16, Wire::kInt8})
    run_ranks(3, 60, [&](Communicator& comm) {
      const std::vector<float> logits = run_prompts(folder.path(), Plan::kPp, comm, {.wire = wire});
      if (comm.rank() != 0) return;
      EXPECT_NE(logits, exact);
      EXPECT_LT(distance(logits, exact), 0.05 * distance(exact, std::vector<float>(exact.size())));
    });
}

TEST(Stages, HoldOnlyWhatTheirLayersNeed) {
  ModelConfig config = small_config();
  set_layers(config, 5);
  const RandomModel folder(config);
  const auto self = make_self_comm();
  const Model whole = load_model(folder.path(), Plan::kTp, *self);
  const std::size_t head = whole.weights.head_vD.bytes();
  const std::size_t layer = (whole.weights.packed_bytes() - head) / 5;
  const KvShape shape = whole.kv_shape(KvType::kF32);
  const PlanChoice plan{Plan::kPp, {1, 3, 1}};
  run_ranks(3, 60, [&](Communicator& comm) {
    const Model model = load_model(folder.path(), plan, comm);
    const int layers = plan.stage_layers[comm.rank()];
    EXPECT_EQ(model.own_layers().size(), layers);
    EXPECT_EQ(model.weights.packed_bytes(), layers * layer + (comm.rank() == 2 ? head : 0));
    EXPECT_EQ(model.weights.embedding_VD.rows, comm.rank() == 0 ? config.vocab_size : 0);
    EXPECT_EQ(KvCache(model.own_layers(), 10, shape).bytes(), 10 * layers * shape.block_bytes());
  });
}

// Rows of r and, in a federated model, of every group's update go to the next stage, once for each micro-batch.
TEST(Stages, SendWhatIsPredicted) {
  for (const ModelConfig& config : {small_config(), small_federated(4)})
    for (const Wire wire : {Wire::kF32, Wire::kInt8})
      for (const int sequences : {1, 63, 200}) {
        const RandomModel folder(config);
        const std::vector<int> nodes{0, 0, 1};
        run_ranks(nodes, 60, [&](Communicator& comm) {
          const Model model = load_model(folder.path(), Plan::kPp, comm);
          RankGrid grid(model.placement, comm);
          ThreadPool pool(1);
          KvCache kv(model.own_layers(), sequences, model.kv_shape(KvType::kBF16));
          Activations a(model, grid.across_groups(), sequences, sequences, {.wire = wire});
          Batch batch;
          for (std::int32_t s = 0; s < sequences; ++s)
            batch.add_sequence(std::vector<std::int32_t>{s % 70}, 0, std::vector<std::int32_t>{s},
                               Batch::Sample::kLast);
          batch.candidates.assign(sequences, 1);
          const CommCounters before = comm.counters();
          const Logits logits = forward(model, batch, kv, a, grid, pool);
          EXPECT_EQ(logits.candidates.size(), comm.rank() == 0 ? sequences : 0u);
          const CommCounters sent = comm.counters() - before;
          const WireCost cost =
              decode_wire_cost(config, model.placement, nodes, comm.rank(), {.wire = wire}, sequences);
          EXPECT_EQ(sent.send.calls, static_cast<std::uint64_t>(cost.send_calls));
          EXPECT_EQ(sent.send.messages, cost.sends.messages);
          EXPECT_EQ(sent.send.bytes, cost.sends.bytes);
          EXPECT_EQ(sent.send.node_bytes, cost.sends.node_bytes);
          EXPECT_EQ(sent.sum.bytes + sent.all_to_all.bytes, 0u);
          EXPECT_EQ(sent.gather.calls, 0u);
          EXPECT_EQ(cost.sends.bytes == sequences * sizeof(Candidate), comm.rank() == 2);
          if (wire == Wire::kF32 && comm.rank() < 2) {
            const std::uint64_t vectors = config.federated() ? 1 + config.expert_groups : 1;
            EXPECT_EQ(cost.sends.bytes, 4 * vectors * sequences * config.hidden_size);
            EXPECT_EQ(cost.sends.messages, sequences == 200 ? 3u : 1u);
          }
        });
      }
}

TEST(Stages, RefuseHalvesThatOverlap) {
  const RandomModel folder(small_config());
  run_ranks(2, 60, [&](Communicator& comm) {
    const Model model = load_model(folder.path(), Plan::kPp, comm);
    EXPECT_THAT([&] { RankGrid(model.placement, comm, true); },
                testing::ThrowsMessage<Error>("overlap: expected one stage, got 2, whose micro-batches overlap"));
  });
}

// What a rank receives is input: another number of bytes than its batch has rows is refused.
TEST(Stages, RefuseRowsOfAnotherBatch) {
  const RandomModel folder(small_config());
  run_ranks(2, 60, [&](Communicator& comm) {
    Runner runner(folder.path(), Plan::kPp, comm);
    Batch batch;
    const std::vector<std::int32_t> tokens(comm.rank() + 1, 7), blocks{0};
    batch.add_sequence(tokens, 0, blocks, Batch::Sample::kLast);
    if (comm.rank() == 1)
      EXPECT_THAT([&] { runner.run(batch); },
                  testing::ThrowsMessage<Error>("rank 1: expected a message of 384 bytes from rank 0, got one of 192"));
    else
      EXPECT_THAT([&] { runner.run(batch); }, testing::ThrowsMessage<Error>(testing::HasSubstr("rank 1 left the job")));
  });
}

}  // namespace
}  // namespace foe
