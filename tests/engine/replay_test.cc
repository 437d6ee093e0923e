// One pass over prompt and output chooses the tokens that came one by one, on any number of ranks, and sees any other.
#include <gtest/gtest.h>

#include "core/configs.h"
#include "engine/answers.h"
#include "engine/with_engine.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {
namespace {

std::vector<Request> answered(const std::string& path, std::vector<Request> requests) {
  with_engine(path, 1, {}, [&](Engine& engine) {
    const std::map<std::int64_t, Answer> all = answers(engine, requests);
    for (Request& r : requests) r.output = all.at(r.id).tokens;
  });
  for (Request& r : requests) r.sampling.logprobs = r.sampling.prompt_logprobs = -1;  // which change no token
  return requests;
}

void check_replays(const ModelConfig& config, Plan plan, const EngineOptions& options, int ranks) {
  const RandomModel folder(config);
  const std::vector<Request> requests = answered(folder.path(), every_way_to_sample());
  with_engine(folder.path(), plan, ranks, options, [&](Engine& engine) {
    for (Request r : requests) {
      const Engine::Replayed same = engine.replay(r);
      EXPECT_EQ(same.equal, r.output.size()) << "request " << r.id;
      EXPECT_FALSE(same.chosen) << "request " << r.id;
      const std::size_t at = static_cast<std::size_t>(r.id) % r.output.size();
      const std::int32_t right = r.output[at];
      r.output[at] = right == 7 ? 8 : 7;
      const Engine::Replayed other = engine.replay(r);
      EXPECT_EQ(other.equal, at) << "request " << r.id;
      EXPECT_EQ(other.chosen, right) << "request " << r.id;
    }
  });
}

TEST(Replay, ChoosesTheSameOnAnyPlanAndInAnyChunks) {
  check_replays(small_federated(4), Plan::kFoe, {.max_batch_tokens = 7, .max_sequences = 1, .max_sampled = 5}, 1);
  check_replays(small_federated(4), Plan::kFoe, {.max_sequences = 1, .max_sampled = 64}, 4);
  check_replays(small_config(), Plan::kEp, {.max_sequences = 1, .max_sampled = 3}, 2);
  check_replays(small_config(), Plan::kTp, {.max_batch_tokens = 16, .max_sequences = 1, .max_sampled = 16}, 3);
}

TEST(Replay, KeepsToAGrammar) {
  ModelConfig config = small_config();
  config.vocab_size = 561;
  const RandomModel folder(config);
  const auto tokens = std::make_shared<TokenTable>(gpt2_tokenizer(), config.vocab_size);
  Request r = request(1, 5, 100, 1.0f);
  r.stop_ids = {560};
  r.constraint = {Constraint::Kind::kRegex, "[a-c]{3,9}(, [a-c]{3,9}){2}"};
  const auto run = [&](const EngineOptions& options, const std::function<void(Engine&)>& lead) {
    with_engine(folder.path(), 1, options, [&](Engine& engine) {
      engine.allow_constraints(tokens);
      lead(engine);
    });
  };
  run({}, [&](Engine& engine) { r.output = answers(engine, {r}).at(1).tokens; });
  run({.max_sequences = 1, .max_sampled = 4}, [&](Engine& engine) {
    EXPECT_EQ(engine.replay(r).equal, r.output.size());
    Request free = r;
    free.constraint = {};
    EXPECT_TRUE(engine.replay(free).chosen);
    Request reseeded = r;
    reseeded.sampling.seed = 2;
    EXPECT_TRUE(engine.replay(reseeded).chosen);
  });
}

TEST(Replay, RefusesWhatCannotRun) {
  const RandomModel folder(small_config());
  with_engine(folder.path(), 1, {.max_sequences = 1, .kv_tokens = 32}, [](Engine& engine) {
    const auto refusal = [&](const Request& r) -> std::string {
      try {
        engine.replay(r);
      } catch (const Error& error) {
        return error.what();
      }
      return "none";
    };
    Request r = request(1, 20, 5);
    r.output = {1, 2, 70};
    EXPECT_EQ(refusal(r), "token: expected an id in [0, 70), got 70");
    r.output = std::vector<std::int32_t>(13, 1);
    EXPECT_EQ(refusal(r), "expected a prompt and an output of at most 32 tokens together, the KV cache's, got 33");
    r.output.clear();
    EXPECT_EQ(refusal(r), "none");
    r.prompt = {};
    EXPECT_EQ(refusal(r), "prompt: expected at least one token, got none");
  });
}

}  // namespace
}  // namespace foe
