// The bits of a token's logits do not depend on what the scheduler does: waits, chunks, prefix hits, preemption.
#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "core/configs.h"
#include "engine/sampler.h"
#include "engine/with_engine.h"
#include "model/random_model.h"

namespace foe {
namespace {

// Of each output token of each request, in order: the token and all logits that it was chosen from.
struct Choice {
  std::int32_t token;
  std::vector<float> logits_V;
  bool operator==(const Choice&) const = default;
};
using Choices = std::map<std::int64_t, std::vector<Choice>>;

// Prompts that begin with one of two others, and some that are the same.
std::vector<Request> requests_under_pressure(int count) {
  std::vector<Request> all;
  for (int id = 1; id <= count; ++id) {
    Request r;
    r.id = id;
    std::vector<std::int32_t> prompt = random_tokens(20 + 17 * (id % 2), 70, id % 2);
    const std::vector<std::int32_t> own = random_tokens(3 + 7 * id % 30, 70, 100 + id / 3);
    prompt.insert(prompt.end(), own.begin(), own.end());
    r.prompt = std::move(prompt);
    r.max_tokens = 8 + 5 * id % 40;
    r.priority = id % 5 == 0 ? -1 : 0;
    r.sampling.temperature = 1.0f;
    r.sampling.seed = static_cast<std::uint64_t>(id);
    all.push_back(std::move(r));
  }
  return all;
}

// Runs a batch as Engine::step does, but keeps the logits.
void step(Engine& engine, Scheduler& scheduler, Choices& choices) {
  const auto [batch, rows, ids] = scheduler.next();
  const std::span<const float> logits_SV = engine.run(batch);
  const std::size_t V = engine.model().config.vocab_size;
  Sampler sampler(static_cast<int>(V));
  std::vector<SampledToken> tokens;
  for (int i = 0; i < batch.num_sampled(); ++i) {
    const Request* request = rows[i].request;
    const auto logits_V = logits_SV.subspan(i * V, V);
    ASSERT_EQ(rows[i].text.size(), request->prompt.size() + request->output.size());
    const std::int32_t token = sampler.choose(logits_V, *request, rows[i].text);
    choices[request->id].push_back({token, {logits_V.begin(), logits_V.end()}});
    tokens.push_back({token});
  }
  scheduler.commit(tokens);
  scheduler.check();
}

Choices alone(const RandomModel& folder, const std::vector<Request>& all, KvType type) {
  Choices choices;
  const EngineOptions options{.max_batch_tokens = 512, .kv_tokens = 512, .kv_type = type};
  with_engine(folder.path(), Plan::kEp, 1, options, [&](Engine& engine) {
    for (const Request& r : all) {
      Scheduler scheduler({.kv_blocks = 32, .max_positions = 512, .prefix_caching = false});
      scheduler.add(r);
      while (!scheduler.idle()) step(engine, scheduler, choices);
    }
  });
  return choices;
}

struct PressureJob {
  PlanChoice plan;
  int ranks;
  int budget = 30;  // tokens of a step
};

// All requests want some 110 blocks; each owner has 11, of which one request takes up to seven.
void check_under_pressure(const RandomModel& folder, const PressureJob& job, const std::vector<Request>& all,
                          const Choices& expected, KvType type) {
  const EngineOptions options{
      .threads = 2, .max_batch_tokens = job.budget, .max_sequences = 16, .kv_tokens = 11 * kKvBlock, .kv_type = type};
  const std::map<int, std::int64_t> aborts{{12, 4}, {25, 9}, {40, 17}};
  Choices choices;
  with_engine(folder.path(), job.plan, job.ranks, options, [&](Engine& engine) {
    Scheduler scheduler({.kv_blocks = 11,
                         .max_tokens = job.budget,
                         .max_sequences = 16,
                         .max_positions = 512,
                         .owners = engine.model().placement.owners()});
    std::size_t next = 0;
    for (int n = 0; !scheduler.idle() || next < all.size(); ++n) {
      for (int few = 0; few < 2 && next < all.size(); ++few) scheduler.add(all[next++]);
      if (const auto gone = aborts.find(n); gone != aborts.end()) scheduler.abort(gone->second);
      step(engine, scheduler, choices);
    }
    EXPECT_GT(scheduler.stats().preemptions, 3);
    EXPECT_GT(scheduler.stats().prefix_hits, 200);
  });
  for (const Request& r : all) {
    const std::vector<Choice>&got = choices[r.id], &want = expected.at(r.id);
    ASSERT_LE(got.size(), want.size());
    EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin()))
        << "request " << r.id << ", " << job.ranks << " ranks";
    const bool aborted = r.id == 4 || r.id == 9 || r.id == 17;
    EXPECT_TRUE(aborted || got.size() == want.size()) << r.id;
  }
}

const PressureJob kPressureJobs[] = {{Plan::kEp, 1}, {Plan::kEp, 2}, {{Plan::kEp, {}, 0, true}, 3, 70}, {Plan::kPp, 3}};

TEST(Pressure, LogitsAreThoseOfEachRequestAlone) {
  const RandomModel folder(small_config());
  const std::vector<Request> all = requests_under_pressure(24);
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    const Choices expected = alone(folder, all, type);
    for (const PressureJob& job : kPressureJobs) check_under_pressure(folder, job, all, expected, type);
  }
}

// The same through Engine itself.
TEST(Pressure, TokensAreThoseOfEachRequestAlone) {
  const RandomModel folder(small_config());
  const std::vector<Request> all = requests_under_pressure(24);
  const Choices expected = alone(folder, all, KvType::kBF16);
  for (const auto& [plan, ranks, budget] : kPressureJobs) {
    const EngineOptions options{.max_batch_tokens = budget, .max_sequences = 16, .kv_tokens = 11 * kKvBlock};
    std::map<std::int64_t, std::vector<std::int32_t>> tokens;
    with_engine(folder.path(), plan, ranks, options, [&](Engine& engine) {
      for (const Request& r : all) engine.submit(r);
      while (!engine.idle())
        for (const TokenEvent& event : engine.step()) tokens[event.id].push_back(event.token);
      EXPECT_GT(engine.scheduler().stats().preemptions, 0);
    });
    for (const Request& r : all) {
      std::vector<std::int32_t> want;
      for (const Choice& choice : expected.at(r.id)) want.push_back(choice.token);
      EXPECT_EQ(tokens[r.id], want) << "request " << r.id << ", " << ranks << " ranks";
    }
  }
}

}  // namespace
}  // namespace foe
