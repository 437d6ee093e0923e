#include "engine/engine.h"

#include <functional>
#include <map>
#include <numeric>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/sum_plan.h"
#include "model/random_model.h"
#include "model/wire_cost.h"

namespace foe {
namespace {

Request request(std::int64_t id, int prompt, int max_tokens, float temperature = 0) {
  Request r;
  r.id = id;
  for (int i = 0; i < prompt; ++i) r.prompt.push_back(static_cast<std::int32_t>(random_bits(id, i) % 70));
  r.max_tokens = max_tokens;
  r.sampling = {.temperature = temperature, .seed = static_cast<std::uint64_t>(id)};
  return r;
}

using Outputs = std::map<std::int64_t, std::vector<std::int32_t>>;

void drain(Engine& engine, Outputs& outputs) {
  while (!engine.idle())
    for (const TokenEvent& event : engine.step()) outputs[event.id].push_back(event.token);
}

// Runs lead(engine) on rank 0 of as many threads as `nodes` has ranks, the others following.
void with_engine(const std::string& path, Plan plan, const std::vector<int>& nodes, EngineOptions options,
                 const std::function<void(Engine&)>& lead) {
  auto comms = make_local_comms(nodes);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < nodes.size(); ++r)
    threads.emplace_back([&, r] {
      Engine engine(load_model(path, plan, *comms[r]), *comms[r], options);
      if (r != 0) return engine.follow();
      lead(engine);
      engine.stop();
    });
  for (std::thread& t : threads) t.join();
}

// All on one node.
void with_engine(const std::string& path, Plan plan, int ranks, EngineOptions options,
                 const std::function<void(Engine&)>& lead) {
  with_engine(path, plan, std::vector<int>(ranks), options, lead);
}

// With the plan that fits the model.
void with_engine(const std::string& path, int ranks, EngineOptions options, const std::function<void(Engine&)>& lead) {
  with_engine(path, default_plan(load_model_config(path)), ranks, options, lead);
}

void check_requests_together(const RandomModel& folder, Plan plan) {
  std::vector<Request> requests;
  for (int i = 1; i <= 9; ++i) requests.push_back(request(i, 3 + 11 * i % 70, 5 + 3 * i, i % 3 ? 1.0f : 0.0f));
  Outputs alone;
  for (const Request& r : requests)
    with_engine(folder.path(), 1, {}, [&](Engine& engine) {
      engine.submit(r);
      drain(engine, alone);
    });
  // Few KV blocks and a small budget: requests wait, and prompts come in chunks.
  for (const auto& nodes :
       std::vector<std::vector<int>>{{0}, {0, 0}, {0, 0, 0}, {0, 0, 1}, {0, 0, 0, 0}, {0, 0, 1, 1}}) {
    Outputs together;
    with_engine(folder.path(), plan, nodes,
                {.threads = 2, .max_batch_tokens = 13, .max_sequences = 4, .kv_tokens = 300}, [&](Engine& engine) {
                  for (const Request& r : requests) engine.submit(r);
                  drain(engine, together);
                });
    EXPECT_EQ(together, alone) << nodes.size() << " ranks on " << nodes.back() + 1 << " nodes";
  }
}

TEST(Engine, RequestsTogetherGiveWhatEachGivesAloneOnAnyNumberOfRanks) {
  check_requests_together(RandomModel(small_federated(4)), Plan::kFoe);
  check_requests_together(RandomModel(small_federated(2)),
                          Plan::kFoe);  // on three ranks one is idle, four share groups
  check_requests_together(RandomModel(small_config()), Plan::kEp);
}

TEST(Engine, AResubmittedRequestContinuesWithTheSameTokens) {
  const RandomModel folder(small_federated(4));
  const Request whole = request(5, 12, 30, 1.0f);
  Outputs expected;
  with_engine(folder.path(), 2, {}, [&](Engine& engine) {
    engine.submit(whole);
    drain(engine, expected);
  });
  for (const int sent : {1, 7, 29}) {
    Request rest = whole;
    rest.output.assign(expected[5].begin(), expected[5].begin() + sent);
    Outputs outputs;
    with_engine(folder.path(), 2, {}, [&](Engine& engine) {
      engine.submit(rest);
      drain(engine, outputs);
    });
    EXPECT_EQ(outputs[5], std::vector<std::int32_t>(expected[5].begin() + sent, expected[5].end()));
  }
}

TEST(Engine, RefusesTokensOutsideTheVocabulary) {
  const RandomModel folder(small_config());
  with_engine(folder.path(), 1, {}, [&](Engine& engine) {
    for (const std::int32_t bad : {-1, 70}) {
      Request r = request(1, 4, 4);
      r.prompt[2] = bad;
      EXPECT_THAT([&] { engine.submit(r); },
                  testing::ThrowsMessage<Error>(testing::HasSubstr("expected an id in [0, 70)")));
    }
    EXPECT_TRUE(engine.idle());
  });
}

// One broadcast, one gather, L + 1 or 2 L sums per step, and the bytes that model/wire_cost.h predicts.
void check_a_step(const RandomModel& folder, const std::vector<int>& nodes, const EngineOptions& options) {
  with_engine(folder.path(), default_plan(folder.config()), nodes, options, [&](Engine& engine) {
    for (const int id : {1, 2}) engine.submit(request(id, 9, 11));
    engine.step();
    const auto before = engine.collect_counters();
    for (int i = 0; i < 10; ++i) engine.step();
    const auto after = engine.collect_counters();
    for (std::size_t r = 0; r < nodes.size(); ++r) {
      const WireCost cost =
          decode_wire_cost(folder.config(), engine.model().placement, nodes, static_cast<int>(r), options.exchange, 2);
      const CommCounter sum = after[r].sum - before[r].sum, gather = after[r].gather - before[r].gather;
      EXPECT_EQ(sum.calls, 10u * cost.sum_calls);
      EXPECT_EQ(sum.messages, 10 * cost.sums.messages);
      EXPECT_EQ(sum.bytes, 10 * cost.sums.bytes);
      EXPECT_EQ(sum.node_bytes, 10 * cost.sums.node_bytes);
      EXPECT_EQ(gather.calls, 10u);
      EXPECT_EQ(gather.bytes, 10 * cost.gather_bytes);
      EXPECT_EQ((after[r].broadcast - before[r].broadcast).calls, 10u);
    }
  });
}

TEST(Engine, AStepExchangesWhatThePlanSays) {
  ModelConfig full = small_config();
  full.qk_norm = QkNorm::kFull;
  for (const ModelConfig& config : {small_federated(4), small_config(), full}) {
    const RandomModel folder(config);
    for (const auto& nodes : std::vector<std::vector<int>>{{0, 0}, {0, 1}, {0, 0, 0}, {0, 0, 1}, {0, 0, 1, 1}})
      for (const Wire wire : {Wire::kF32, Wire::kInt8}) check_a_step(folder, nodes, {.exchange = {.wire = wire}});
  }
}

// Two all-to-alls per layer between the ranks that share a group, and sums between groups if there are several: each
// rank has a request of its own, all of one length.
void check_a_step_with_shared_groups(const RandomModel& folder, Plan plan, int ranks) {
  with_engine(folder.path(), plan, ranks, {.kv_tokens = 64}, [&](Engine& engine) {
    const Placement& placement = engine.model().placement;
    for (int id = 1; id <= placement.members; ++id) engine.submit(request(id, 9, 11));
    engine.step();
    const auto before = engine.collect_counters();
    for (int i = 0; i < 10; ++i) engine.step();
    const auto after = engine.collect_counters();
    const int L = folder.config().num_hidden_layers;
    for (int r = 0; r < ranks; ++r) {
      const WireCost cost = decode_wire_cost(folder.config(), placement, engine.comm().nodes(), r);
      const bool idle = placement.ranks[r].idle();
      EXPECT_EQ(cost.sum_calls, idle || plan == Plan::kEp ? 0 : L + 1);
      EXPECT_EQ(cost.all_to_all_calls, idle ? 0 : 2 * L);
      const CommCounter sum = after[r].sum - before[r].sum;
      EXPECT_EQ(sum.calls, 10u * cost.sum_calls);
      EXPECT_EQ(sum.bytes, 10 * cost.sums.bytes);
      EXPECT_EQ((after[r].all_to_all - before[r].all_to_all).calls, 10u * cost.all_to_all_calls);
      EXPECT_EQ((after[r].broadcast - before[r].broadcast).calls, 10u);
      EXPECT_EQ((after[r].gather - before[r].gather).bytes, 10 * cost.gather_bytes);
    }
  });
}

TEST(Engine, AStepWithSharedGroupsExchangesTwicePerLayerInsideThem) {
  const RandomModel moe(small_config()), federated(small_federated(2));
  for (const int ranks : {2, 3}) check_a_step_with_shared_groups(moe, Plan::kEp, ranks);
  for (const int ranks : {4, 5, 6}) check_a_step_with_shared_groups(federated, Plan::kFoe, ranks);
}

// Every token's K selections count once in each layer, on whichever rank; in the last layer those of sampled tokens.
TEST(Engine, TheLoadOfExpertsIsTheSameOnAnyNumberOfRanksUnderAnyPlan) {
  const int prompt = 23, answer = 6;
  for (const ModelConfig& config : {small_config(), small_federated(4)}) {
    const RandomModel folder(config);
    const int L = config.num_hidden_layers, K = config.num_experts_per_tok;
    std::vector<std::vector<std::int64_t>> expected;
    for (const Plan plan : {Plan::kTp, Plan::kEp, Plan::kFoe}) {
      if ((plan == Plan::kFoe) != config.federated()) continue;
      for (const int ranks : {1, 2, 3, 9}) {
        if (plan == Plan::kTp && ranks > config.num_key_value_heads) continue;
        with_engine(folder.path(), plan, ranks, {.max_batch_tokens = 7, .kv_tokens = 128}, [&](Engine& engine) {
          const Placement& placement = engine.model().placement;
          for (int id = 1; id <= 3; ++id) engine.submit(request(id, prompt, answer));
          Outputs outputs;
          drain(engine, outputs);
          const auto counters = engine.collect_counters();
          const std::vector<ExpertLoad> load = engine.collect_load();
          EXPECT_EQ(engine.collect_counters()[0].total().calls, counters[0].total().calls);
          const auto rows = rows_by_expert(config, placement, load);
          for (int layer = 0; layer < L; ++layer) {
            const int tokens = layer + 1 < L ? prompt + answer - 1 : answer;
            EXPECT_EQ(std::accumulate(rows[layer].begin(), rows[layer].end(), std::int64_t{0}), 3 * tokens * K);
          }
          if (expected.empty()) expected = rows;
          EXPECT_EQ(rows, expected) << to_string(plan) << ", " << ranks << " ranks";
          const double rate = local_activation_rate(load);
          if (placement.members == 1)
            EXPECT_EQ(rate, 1);
          else
            EXPECT_THAT(rate, testing::AllOf(testing::Gt(0), testing::Lt(1)));
        });
      }
    }
  }
}

}  // namespace
}  // namespace foe
