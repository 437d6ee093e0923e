#include "engine/engine.h"

#include <map>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/sum_plan.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "costs/wire_cost.h"
#include "engine/answers.h"
#include "engine/sampler.h"
#include "engine/with_engine.h"
#include "model/random_model.h"
#include "weights/convert.h"

namespace foe {
namespace {

using Outputs = std::map<std::int64_t, std::vector<std::int32_t>>;

void drain(Engine& engine, Outputs& outputs) {
  while (!engine.idle())
    for (const TokenEvent& event : engine.step()) outputs[event.id].push_back(event.token);
}

// Where members split sequences (--ep-attention split).
PlanChoice split_plan(Plan plan, int stages = 0) {
  return {plan, {}, stages, true};
}

void check_requests_together(const std::string& path, const PlanChoice& plan, int budget = 13) {
  std::vector<Request> requests;
  for (int i = 1; i <= 9; ++i) requests.push_back(request(i, 3 + 11 * i % 70, 5 + 3 * i, i % 3 ? 1.0f : 0.0f));
  Outputs alone;
  for (const Request& r : requests)
    with_engine(path, 1, {}, [&](Engine& engine) {
      engine.submit(r);
      drain(engine, alone);
    });
  // Few KV blocks and a small budget: requests wait, and prompts come in chunks.
  for (const auto& nodes :
       std::vector<std::vector<int>>{{0}, {0, 0}, {0, 0, 0}, {0, 0, 1}, {0, 0, 0, 0}, {0, 0, 1, 1}}) {
    Outputs together;
    with_engine(path, plan, nodes, {.threads = 2, .max_batch_tokens = budget, .max_sequences = 4, .kv_tokens = 300},
                [&](Engine& engine) {
                  for (const Request& r : requests) engine.submit(r);
                  drain(engine, together);
                });
    EXPECT_EQ(together, alone) << nodes.size() << " ranks on " << nodes.back() + 1 << " nodes";
  }
}

TEST(Engine, RequestsTogetherGiveWhatEachGivesAloneOnAnyNumberOfRanks) {
  check_requests_together(RandomModel(small_federated(4)).path(), Plan::kFoe);
  // On three ranks one is idle, four share groups.
  check_requests_together(RandomModel(small_federated(2)).path(), Plan::kFoe);
  check_requests_together(RandomModel(small_config()).path(), Plan::kEp);
  // Steps with pieces of prompts on all ranks.
  check_requests_together(RandomModel(small_config()).path(), split_plan(Plan::kEp), 80);
  check_requests_together(RandomModel(small_federated(2)).path(), split_plan(Plan::kFoe), 80);
  // Prompts that are longer than the window, whose beginnings the prefix cache shares.
  ModelConfig windows = small_config();
  set(windows, &AttentionConfig::window, 20);
  check_requests_together(RandomModel(windows).path(), Plan::kTp);
  for (ModelConfig config : {windows, small_federated(2)}) {
    set_layers(config, 5);  // for up to four stages
    check_requests_together(RandomModel(config).path(), Plan::kPp);
  }
}

// Returns what each rank sends in ten steps of decode, in which every member runs a row of a sequence of the same
// length.
std::vector<CommCounters> sent_in_ten_steps(Engine& engine) {
  const Placement& placement = engine.model().placement;
  // The sequences that members own are all in one lane; those that they split are dealt to the lanes in turn.
  const int requests = placement.members * (placement.split_sequences ? engine.scheduler().lanes() : 1);
  for (int id = 1; id <= requests; ++id) engine.submit(request(id, 9, 11));
  engine.step();
  const std::vector<CommCounters> before = engine.collect_counters();
  for (int i = 0; i < 10; ++i) engine.step();
  std::vector<CommCounters> sent = engine.collect_counters();
  for (std::size_t rank = 0; rank < sent.size(); ++rank) sent[rank] = sent[rank] - before[rank];
  return sent;
}

// Two stages of two ranks each, which share their layers under another plan.
TEST(Engine, StagesOfSeveralRanksGiveWhatOneRankGives) {
  for (const PlanChoice& choice :
       {PlanChoice(Plan::kTp, {}, 2), {Plan::kEp, {}, 2}, {Plan::kFoe, {}, 2}, split_plan(Plan::kEp, 2)}) {
    const Plan plan = choice.plan;
    const RandomModel folder(plan == Plan::kFoe ? small_federated(2) : small_config());
    std::map<std::int64_t, Answer> alone;
    const std::vector<Request> requests = every_way_to_sample();
    const EngineOptions options{.max_batch_tokens = 100, .max_sequences = 9, .kv_tokens = 400};
    with_engine(folder.path(), plan, 1, options, [&](Engine& engine) { alone = answers(engine, requests); });
    with_engine(folder.path(), choice, {0, 0, 1, 1}, options, [&](Engine& engine) {
      EXPECT_EQ(answers(engine, requests), alone) << to_string(plan);
      const std::vector<CommCounters> sent_by = sent_in_ten_steps(engine);
      const std::uint64_t steps = sent_by[0].broadcast.calls;
      EXPECT_GE(steps, 9u);
      for (int r = 0; r < 4; ++r) {
        const WireCost cost = decode_wire_cost(folder.config(), engine.model().placement, engine.comm().nodes(), r);
        const CommCounters& sent = sent_by[r];
        EXPECT_EQ(sent.sum.calls, steps * cost.sum_calls);
        EXPECT_EQ(sent.sum.bytes, steps * cost.sums.bytes);
        EXPECT_EQ(sent.all_to_all.calls, steps * cost.all_to_all_calls);
        EXPECT_EQ(sent.send.calls, steps * cost.send_calls);
        EXPECT_EQ(sent.send.node_bytes, steps * cost.sends.node_bytes);
        EXPECT_EQ(sent.gather.calls, 0u);
      }
    });
  }
}

TEST(Engine, QuantisedModelsToo) {
  for (const WeightFormat format : {WeightFormat::kBF16xBF16, WeightFormat::kInt8, WeightFormat::kInt4})
    for (const Plan plan : {Plan::kFoe, Plan::kEp}) {
      SCOPED_TRACE(testing::Message() << to_string(format) << ", plan " << to_string(plan));
      const RandomModel folder(plan == Plan::kFoe ? small_federated(2) : small_config());
      const TempFolder converted;
      ThreadPool pool(1);
      convert_model(pool, folder.path(), folder.config(), FormatChoice::all(format), converted / "model",
                    [](std::size_t, std::size_t) {});
      check_requests_together(converted / "model", plan);
    }
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

// Alone, among others, on any number of ranks, and resubmitted with a part of the output.
void check_every_way_to_sample(const ModelConfig& config, const PlanChoice& plan, int budget = 13) {
  const RandomModel folder(config);
  const std::vector<Request> requests = every_way_to_sample();
  std::map<std::int64_t, Answer> alone;
  with_engine(folder.path(), plan, 1, {}, [&](Engine& engine) {
    for (const Request& r : requests) alone.merge(answers(engine, {r}));
  });
  std::vector<Request> resubmitted = requests;
  std::map<std::int64_t, Answer> expected = alone;
  for (Request& r : resubmitted) {
    Answer& answer = expected[r.id];
    const int sent = static_cast<int>(r.id % answer.tokens.size());
    r.output.assign(answer.tokens.begin(), answer.tokens.begin() + sent);
    answer.tokens.erase(answer.tokens.begin(), answer.tokens.begin() + sent);
    if (r.sampling.logprobs >= 0) answer.logprobs.erase(answer.logprobs.begin(), answer.logprobs.begin() + sent);
    if (sent > 0) answer.prompt.clear();
  }
  for (const int ranks : {1, 2, 3, 4})
    with_engine(folder.path(), plan, ranks,
                {.threads = ranks <= 2 ? 2 : 1, .max_batch_tokens = budget, .max_sequences = 4, .kv_tokens = 300},
                [&](Engine& engine) {
                  EXPECT_EQ(answers(engine, requests), alone) << ranks << " ranks";
                  EXPECT_EQ(answers(engine, resubmitted), expected) << ranks << " ranks, resubmitted";
                });

  for (const Request& r : requests) {
    const Answer& answer = alone[r.id];
    EXPECT_EQ(answer.logprobs.size(), r.sampling.logprobs >= 0 ? answer.tokens.size() : 0);
    EXPECT_EQ(answer.prompt.size(), r.sampling.prompt_logprobs >= 0 ? r.prompt.size() - 1 : 0);
    if (r.sampling.min_tokens > 0) {
      EXPECT_GE(static_cast<int>(answer.tokens.size()), r.sampling.min_tokens);
      for (int i = 0; i + 1 < r.sampling.min_tokens; ++i) EXPECT_EQ(answer.tokens[i] % 2, 1);
    }
  }
  // Each parameter does something, and reports change nothing.
  std::vector<Request> plain = requests, silent = requests;
  for (Request& r : plain) r.sampling = {.temperature = r.sampling.temperature, .seed = r.sampling.seed};
  for (Request& r : silent) r.sampling.logprobs = r.sampling.prompt_logprobs = -1;
  with_engine(folder.path(), plan, 1, {}, [&](Engine& engine) {
    auto others = answers(engine, plain);
    for (std::int64_t id = 3; id < 15; ++id) EXPECT_NE(others[id].tokens, alone[id].tokens) << id;
    others = answers(engine, silent);
    for (const auto& [id, answer] : alone) EXPECT_EQ(others[id].tokens, answer.tokens) << id;
  });
}

TEST(Engine, EveryWayToSampleGivesTheSameAloneTogetherAndResubmittedOnAnyNumberOfRanks) {
  check_every_way_to_sample(small_federated(4), Plan::kFoe);
  check_every_way_to_sample(small_federated(2), Plan::kFoe);
  check_every_way_to_sample(small_config(), Plan::kEp);
  check_every_way_to_sample(small_config(), split_plan(Plan::kEp), 80);
  ModelConfig deep = small_config();
  set_layers(deep, 4);
  check_every_way_to_sample(deep, Plan::kPp);
}

// What a prompt's tokens are given is what the logits of foe logits say.
TEST(Engine, PromptLogprobsAreThoseOfTheLogits) {
  const RandomModel folder(small_federated(4));
  Request r = request(1, 30, 1);
  r.sampling.prompt_logprobs = 1;
  with_engine(folder.path(), 2, {.max_sampled = 30}, [&](Engine& engine) {
    Batch batch;
    batch.add_sequence(r.prompt.tokens(), 0, std::vector<std::int32_t>{0, 1}, Batch::Sample::kAll);
    const std::span<const float> logits = engine.run(batch);
    ASSERT_EQ(logits.size(), 30u * 70);
    std::vector<std::vector<float>> expected;
    for (int i = 0; i < 29; ++i)
      expected.push_back(numbers(Sampler(70).logprobs(logits.subspan(i * 70, 70), r.prompt[i + 1], 1)));
    EXPECT_EQ(answers(engine, {r})[1].prompt, expected);
    // From a token on, with what is before it in the prefix cache by now.
    for (const int from : {17, 25, 30}) {
      r.sampling.prompt_logprobs_from = from;
      expected.erase(expected.begin(), expected.end() - (30 - from));
      EXPECT_EQ(answers(engine, {r})[1].prompt, expected) << from;
    }
  });
}

TEST(Engine, ForgetsAbortedRequests) {
  const RandomModel folder(small_config());
  with_engine(folder.path(), 1, {}, [&](Engine& engine) {
    Request r = request(1, 4, 10);
    r.sampling.presence_penalty = 2;
    const Answer expected = answers(engine, {r})[1];
    Request other = request(1, 9, 10);  // another one by that name
    other.sampling.presence_penalty = 2;
    engine.submit(other);
    for (int i = 0; i < 3; ++i) engine.step();
    engine.abort(1);
    EXPECT_TRUE(engine.idle());
    EXPECT_EQ(answers(engine, {r})[1], expected);
  });
}

TEST(Engine, RefusesTokensOutsideTheVocabulary) {
  const RandomModel folder(small_config());
  with_engine(folder.path(), 1, {}, [&](Engine& engine) {
    for (const std::int32_t bad : {-1, 70}) {
      Request r = request(1, 4, 4);
      r.prompt = {1, 2, bad, 4};
      EXPECT_THAT([&] { engine.submit(r); },
                  testing::ThrowsMessage<Error>(testing::HasSubstr("expected an id in [0, 70)")));
    }
    EXPECT_TRUE(engine.idle());
  });
}

// One broadcast, one gather of logits or of candidates, L + 1 or 2 L sums per step, and the bytes that
// costs/wire_cost.h predicts.
void check_a_step(const RandomModel& folder, const std::vector<int>& nodes, const EngineOptions& options,
                  const SamplingParams& sampling = {}, int candidates = 1, bool in_stages = false) {
  const Plan plan = in_stages ? Plan::kPp : default_plan(folder.config());
  with_engine(folder.path(), plan, nodes, options, [&](Engine& engine) {
    for (const int id : {1, 2}) {
      Request r = request(id, 9, 11);
      r.sampling = sampling;
      engine.submit(r);
    }
    engine.step();
    const auto before = engine.collect_counters();
    for (int i = 0; i < 10; ++i) engine.step();
    const auto after = engine.collect_counters();
    // With stages, each request has steps of its own, more than one of which may be under way.
    const std::uint64_t steps = (after[0].broadcast - before[0].broadcast).calls;
    EXPECT_TRUE(in_stages ? steps >= 9 : steps == 10) << steps;
    for (std::size_t r = 0; r < nodes.size(); ++r) {
      const WireCost cost = decode_wire_cost(folder.config(), engine.model().placement, nodes, static_cast<int>(r),
                                             options.exchange, in_stages ? 1 : 2, candidates);
      const CommCounter sum = after[r].sum - before[r].sum, gather = after[r].gather - before[r].gather;
      EXPECT_EQ(sum.calls, steps * cost.sum_calls);
      EXPECT_EQ(sum.messages, steps * cost.sums.messages);
      EXPECT_EQ(sum.bytes, steps * cost.sums.bytes);
      EXPECT_EQ(sum.node_bytes, steps * cost.sums.node_bytes);
      const CommCounter send = after[r].send - before[r].send;
      EXPECT_EQ(send.calls, steps * cost.send_calls);
      EXPECT_EQ(send.bytes, steps * cost.sends.bytes);
      EXPECT_EQ(send.node_bytes, steps * cost.sends.node_bytes);
      EXPECT_EQ(gather.calls, in_stages ? 0 : steps);
      EXPECT_EQ(gather.bytes, steps * cost.gather_bytes);
      EXPECT_EQ((after[r].broadcast - before[r].broadcast).calls, steps);
    }
  });
}

TEST(Engine, AStepExchangesWhatThePlanSays) {
  ModelConfig full = small_config();
  set(full, &AttentionConfig::qk_norm, QkNorm::kFull);
  for (const ModelConfig& config : {small_federated(4), small_config(), full}) {
    const RandomModel folder(config);
    for (const auto& nodes : std::vector<std::vector<int>>{{0, 0}, {0, 1}, {0, 0, 0}, {0, 0, 1}, {0, 0, 1, 1}})
      for (const Wire wire : {Wire::kF32, Wire::kInt8}) {
        check_a_step(folder, nodes, {.exchange = {.wire = wire}});
        if (nodes.size() <= 3) check_a_step(folder, nodes, {.exchange = {.wire = wire}}, {}, 1, true);
      }
  }
}

TEST(Engine, RanksSendWhatSamplingNeeds) {
  for (const ModelConfig& config : {small_federated(4), small_config()}) {
    const RandomModel folder(config);
    for (const int ranks : {2, 4})  // of 70 tokens a rank has 35 or 17 or 18
      for (const Wire wire : {Wire::kF32, Wire::kInt8}) {
        const std::vector<int> nodes(ranks);
        const EngineOptions options{.exchange = {.wire = wire}};
        check_a_step(folder, nodes, options, {.temperature = 1, .top_k = 7}, 7);
        check_a_step(folder, nodes, options, {.temperature = 1, .top_k = 20}, 20);
        check_a_step(folder, nodes, options, {.temperature = 1, .top_k = 64}, 64);
        check_a_step(folder, nodes, options, {.temperature = 1, .top_k = 65}, 0);
        check_a_step(folder, nodes, options, {.temperature = 1}, 0);
        check_a_step(folder, nodes, options, {.logprobs = 0}, 0);
      }
  }
}

// Whole rows and candidates of one batch travel one after the other; a step that samples nothing sends neither.
TEST(Engine, AStepSendsEachKindOfRowOnce) {
  const RandomModel folder(small_federated(4));
  with_engine(folder.path(), 2, {.max_batch_tokens = 20}, [&](Engine& engine) {
    engine.submit(request(1, 5, 20));
    engine.submit(request(2, 5, 20, 1.0f));
    engine.step();
    const auto gathered = [&] { return engine.collect_counters()[1].gather; };
    CommCounter before = gathered();
    engine.step();
    const int v = engine.model().placement.ranks[1].vocab.size();
    EXPECT_EQ((gathered() - before).calls, 2u);
    EXPECT_EQ((gathered() - before).bytes, 8u + 4 * v);
    engine.abort(1);
    engine.abort(2);
    engine.submit(request(3, 30, 1));
    before = gathered();
    engine.step();
    EXPECT_EQ((gathered() - before).calls, 0u);
  });
}

// Two all-to-alls per layer between the ranks that share a group, or three if they split sequences, and sums between
// groups if there are several: there are as many requests as members, all of one length.
void check_a_step_with_shared_groups(const RandomModel& folder, const PlanChoice& plan, int ranks) {
  with_engine(folder.path(), plan, ranks, {.kv_tokens = 256}, [&](Engine& engine) {
    const Placement& placement = engine.model().placement;
    const std::vector<CommCounters> sent = sent_in_ten_steps(engine);
    const int L = folder.config().num_layers();
    for (int r = 0; r < ranks; ++r) {
      const WireCost cost = decode_wire_cost(folder.config(), placement, engine.comm().nodes(), r);
      const bool idle = placement.ranks[r].idle();
      EXPECT_EQ(cost.sum_calls, idle || plan.plan == Plan::kEp ? 0 : L + 1);
      EXPECT_EQ(cost.all_to_all_calls, idle ? 0 : (placement.split_sequences ? 3 : 2) * L);
      EXPECT_EQ(cost.key_bytes > 0, placement.split_sequences && !idle);
      EXPECT_EQ(sent[r].sum.calls, 10u * cost.sum_calls);
      EXPECT_EQ(sent[r].sum.bytes, 10 * cost.sums.bytes);
      EXPECT_EQ(sent[r].all_to_all.calls, 10u * cost.all_to_all_calls);
      EXPECT_EQ(sent[r].broadcast.calls, 10u);
      EXPECT_EQ(sent[r].gather.bytes, 10 * cost.gather_bytes);
    }
  });
}

TEST(Engine, AStepWithSharedGroupsExchangesTwicePerLayerInsideThem) {
  const RandomModel moe(small_config()), federated(small_federated(2));
  for (const bool splits : {false, true}) {
    for (const int ranks : {2, 3}) check_a_step_with_shared_groups(moe, {Plan::kEp, {}, 0, splits}, ranks);
    for (const int ranks : {4, 5, 6}) check_a_step_with_shared_groups(federated, {Plan::kFoe, {}, 0, splits}, ranks);
  }
}

// Every token's K selections count once in each layer, on whichever rank; in the last layer those of sampled tokens.
TEST(Engine, TheLoadOfExpertsIsTheSameOnAnyNumberOfRanksUnderAnyPlan) {
  const int prompt = 23, answer = 6;
  for (const ModelConfig& config : {small_config(), small_federated(4)}) {
    const RandomModel folder(config);
    const int L = config.num_layers(), K = config.experts(0).per_token;
    std::vector<std::vector<std::int64_t>> expected;
    for (const Plan plan : {Plan::kTp, Plan::kEp, Plan::kFoe, Plan::kPp}) {
      if (plan != Plan::kPp && (plan == Plan::kFoe) != config.federated()) continue;
      for (const int ranks : {1, 2, 3, 9}) {
        if (plan == Plan::kPp && ranks > L) continue;
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
