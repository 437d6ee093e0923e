// Requests that want the final hidden states of their prompts: the same bits alone and among others, on any number of
// ranks under any plan, in any chunks.
#include <cmath>
#include <map>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "engine/answers.h"
#include "engine/with_engine.h"
#include "kernels/products/gemm.h"
#include "model/random_model.h"
#include "model/reference_model.h"

namespace foe {
namespace {

using States = std::map<std::int64_t, std::vector<float>>;

Request pooled(std::int64_t id, std::vector<std::int32_t> prompt, Pooling pooling) {
  Request r;
  r.id = id;
  r.prompt = std::move(prompt);
  r.max_tokens = 0;
  r.pooling = pooling;
  return r;
}

std::vector<Request> pooled_requests() {
  std::vector<Request> requests;
  for (const int tokens : {1, 40, 16, 70, 3, 33, 17, 120})
    for (const Pooling pooling : {Pooling::kLast, Pooling::kMean}) {
      const auto id = static_cast<std::int64_t>(requests.size() + 1);
      // Each prompt twice, so that the second may find the first one's blocks.
      requests.push_back(pooled(id, random_tokens(tokens, 70, id / 2 * 2), pooling));
    }
  return requests;
}

States states(Engine& engine, const std::vector<Request>& requests) {
  States all;
  for (const Request& r : requests) engine.submit(r);
  while (!engine.idle())
    for (const TokenEvent& event : engine.step())
      if (!event.state.empty()) {
        EXPECT_TRUE(all.emplace(event.id, event.state).second) << event.id;
        EXPECT_EQ(event.finish, FinishReason::kStop);
      }
  return all;
}

States each_alone(const RandomModel& folder, const std::vector<Request>& requests) {
  States all;
  for (const Request& r : requests)
    with_engine(folder.path(), 1, {}, [&](Engine& engine) { all.merge(states(engine, {r})); });
  EXPECT_EQ(all.size(), requests.size());
  return all;
}

TEST(Pooling, GivesTheSameBitsOnAnyNumberOfRanksUnderAnyPlanInAnyChunks) {
  ModelConfig deep = small_config(), deep_federated = small_federated(2);
  for (ModelConfig* config : {&deep, &deep_federated}) set_layers(*config, 4);
  using Nodes = std::vector<int>;
  const std::tuple<ModelConfig, PlanChoice, std::vector<Nodes>> jobs[] = {
      {small_federated(4), Plan::kFoe, {{0}, {0, 0}, {0, 0, 1}, {0, 0, 0, 0}}},
      {small_federated(2), Plan::kFoe, {{0, 0, 0}, {0, 1, 0, 1}}},  // one is idle; two share each group
      {small_config(), Plan::kTp, {{0, 0}, {0, 0, 1}}},
      {small_config(), Plan::kEp, {{0, 0}, {0, 0, 1, 1}}},
      {small_config(), {Plan::kEp, {}, 0, true}, {{0, 0}, {0, 0, 1}}},  // members split sequences
      {small_federated(2), {Plan::kFoe, {}, 0, true}, {{0, 0, 0, 0}}},
      {deep, Plan::kPp, {{0, 0}, {0, 0, 1}, {0, 0, 0, 0}}},
      {deep_federated, Plan::kPp, {{0, 0}, {0, 0, 0}}},
      {deep, {Plan::kTp, {}, 2}, {{0, 0, 1, 1}}},
      {deep, {Plan::kEp, {}, 2}, {{0, 0, 1, 1}}},
      {deep, {Plan::kEp, {}, 2, true}, {{0, 0, 1, 1}}},
      {deep_federated, {Plan::kFoe, {}, 2}, {{0, 0, 0, 0}}}};
  for (const auto& [config, choice, rank_nodes] : jobs) {
    const RandomModel folder(config);
    const std::vector<Request> requests = pooled_requests();
    const States expected = each_alone(folder, requests);
    std::vector<Request> beside = every_way_to_sample();
    for (Request& r : beside) r.id += 100;
    for (const Nodes& nodes : rank_nodes)
      for (const int chunk : {13, 512}) {
        SCOPED_TRACE(testing::Message() << to_string(choice.plan) << ", " << nodes.size() << " ranks, chunks "
                                        << chunk);
        // Few KV blocks: some are preempted.
        const EngineOptions options{
            .threads = 2, .max_batch_tokens = chunk, .max_sequences = 6, .kv_tokens = chunk == 13 ? 160 : 0};
        with_engine(folder.path(), choice, nodes, options, [&](Engine& engine) {
          for (const Request& r : beside) engine.submit(r);
          EXPECT_EQ(states(engine, requests), expected);
          EXPECT_EQ(states(engine, requests), expected) << "with prompts in the prefix cache";
        });
      }
  }
}

// Halves of a step that overlap, and a lossy wire: states are sent as they are.
TEST(Pooling, SendsStatesExactly) {
  const RandomModel folder(small_config());
  const std::vector<Request> requests = pooled_requests();
  const States expected = each_alone(folder, requests);
  with_engine(folder.path(), Plan::kTp, 2, {.exchange = {.overlap = true}},
              [&](Engine& engine) { EXPECT_EQ(states(engine, requests), expected); });
  // With one stage of one member nothing but the states is rounded, if they are.
  with_engine(folder.path(), Plan::kPp, 1, {.exchange = {.wire = Wire::kInt8}},
              [&](Engine& engine) { EXPECT_EQ(states(engine, requests), expected); });
}

// The token head makes the logits of it.
TEST(Pooling, TheLastStateIsWhatLogitsAreMadeOf) {
  for (const ModelConfig& config : {small_config(), small_federated(4)}) {
    const RandomModel folder(config);
    const std::vector<std::int32_t> prompt = random_tokens(37, 70, 5);
    with_engine(folder.path(), 1, {}, [&](Engine& engine) {
      Batch batch;
      batch.add_sequence(prompt, 0, std::vector<std::int32_t>{0, 1, 2}, Batch::Sample::kLast);
      const std::span<const float> run = engine.run(batch);
      const std::vector<float> expected(run.begin(), run.end());
      const std::vector<float> state = states(engine, {pooled(1, prompt, Pooling::kLast)})[1];
      ASSERT_EQ(state.size(), static_cast<std::size_t>(config.hidden_size));
      std::vector<float> logits(expected.size());
      ThreadPool pool(1);
      const Product product{.x = state.data(),
                            .x_stride = state.size(),
                            .count = 1,
                            .w = &engine.model().weights.head_vD,
                            .y = logits.data(),
                            .y_stride = logits.size()};
      multiply(pool, {&product, 1});
      EXPECT_EQ(logits, expected);
    });
  }
}

// The states of a prompt's tokens are the last ones of its beginnings.
TEST(Pooling, TheMeanIsThatOfTheStatesOfAllTokens) {
  const RandomModel folder(small_federated(2));
  const std::vector<std::int32_t> prompt = random_tokens(45, 70, 6);
  with_engine(folder.path(), 1, {.max_batch_tokens = 20}, [&](Engine& engine) {
    std::vector<double> sum(folder.config().hidden_size);
    for (std::size_t n = 1; n <= prompt.size(); ++n) {
      const auto last = states(engine, {pooled(1, {prompt.begin(), prompt.begin() + n}, Pooling::kLast)})[1];
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += last.at(i);
    }
    std::vector<float> mean;
    for (const double x : sum) mean.push_back(static_cast<float>(x / static_cast<double>(prompt.size())));
    EXPECT_EQ(states(engine, {pooled(1, prompt, Pooling::kMean)})[1], mean);
  });
}

TEST(Pooling, StatesAreThoseOfTheFormulas) {
  for (ModelConfig config : {small_config(), small_federated(4)}) {
    set(config, &ExpertsConfig::per_token, 16);  // every token has all experts, as in the reference
    const RandomModel folder(config);
    const std::vector<std::int32_t> prompt = random_tokens(9, 70, 7);
    const Vector expected = ReferenceModel(folder.path(), config).states(prompt).back();
    with_engine(folder.path(), 1, {.kv_type = KvType::kF32}, [&](Engine& engine) {
      const std::vector<float> state = states(engine, {pooled(1, prompt, Pooling::kLast)})[1];
      for (std::size_t i = 0; i < expected.size(); ++i)
        EXPECT_LE(std::abs(state.at(i) - expected[i].value), 8 * std::sqrt(expected[i].variance)) << i;
    });
  }
}

TEST(Pooling, ForgetsWhatIsAborted) {
  const RandomModel folder(small_config());
  with_engine(folder.path(), 1, {.max_batch_tokens = 16}, [&](Engine& engine) {
    const States expected = states(engine, {pooled(1, random_tokens(40, 70, 1), Pooling::kMean)});
    engine.submit(pooled(1, random_tokens(40, 70, 2), Pooling::kMean));
    engine.step();
    engine.abort(1);
    EXPECT_TRUE(engine.idle());
    EXPECT_EQ(states(engine, {pooled(1, random_tokens(40, 70, 1), Pooling::kMean)}), expected);
  });
}

TEST(Pooling, RefusesWhatAnOutputWouldNeed) {
  const RandomModel folder(small_config());
  with_engine(folder.path(), 1, {}, [&](Engine& engine) {
    const auto refuse = [&](auto&& change, const char* why) {
      Request r = pooled(1, {1, 2}, Pooling::kLast);
      change(r);
      EXPECT_THAT([&] { engine.submit(r); }, testing::ThrowsMessage<Error>(testing::HasSubstr(why)));
    };
    refuse([](Request& r) { r.max_tokens = 1; }, "pooling: expected no output tokens, got 0, at most 1");
    refuse([](Request& r) { r.output = {3}; }, "pooling: expected no output tokens, got 1, at most 0");
    refuse([](Request& r) { r.constraint.kind = Constraint::Kind::kJsonObject; }, "expected no rule for the output");
    refuse([](Request& r) { r.sampling.prompt_logprobs = 0; }, "expected no prompt_logprobs");
    EXPECT_TRUE(engine.idle());
  });
}

}  // namespace
}  // namespace foe
