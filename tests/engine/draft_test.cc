// Guessed tokens change no answer: neither its tokens nor what is reported of them.
#include <memory>

#include <gtest/gtest.h>

#include "core/configs.h"
#include "engine/answers.h"
#include "engine/with_engine.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {
namespace {

// Requests whose texts repeat: their prompts, and by a bias the outputs of some.
std::vector<Request> repeating_requests() {
  std::vector<Request> requests = every_way_to_sample();
  for (Request& r : requests) {
    std::vector<std::int32_t> prompt = r.prompt.tokens();
    prompt.insert(prompt.end(), r.prompt.begin(), r.prompt.end());
    r.prompt = std::move(prompt);
    r.max_tokens = 20;
    if (r.id % 3 == 0) r.sampling.logit_bias.push_back({5, 3.0f});
  }
  return requests;
}

void check_guesses(const ModelConfig& config, const PlanChoice& plan) {
  const RandomModel folder(config);
  const std::vector<Request> requests = repeating_requests();
  std::map<std::int64_t, Answer> expected;
  with_engine(folder.path(), plan, 1, {}, [&](Engine& engine) { expected = answers(engine, requests); });
  SchedulerStats all;
  for (const auto& [ranks, sequences] : {std::pair{1, 20}, {2, 2}, {4, 20}}) {
    const EngineOptions options{.max_batch_tokens = 40, .max_sequences = sequences, .kv_tokens = 400, .max_draft = 7};
    with_engine(folder.path(), plan, ranks, options, [&, count = ranks](Engine& engine) {
      EXPECT_EQ(answers(engine, requests), expected) << count << " ranks";
      all.drafted_tokens += engine.scheduler().stats().drafted_tokens;
      all.accepted_tokens += engine.scheduler().stats().accepted_tokens;
    });
  }
  EXPECT_GT(all.accepted_tokens, 50);
  EXPECT_GT(all.drafted_tokens, all.accepted_tokens + 20);
}

TEST(Draft, ChangesNoAnswerOnAnyPlan) {
  check_guesses(small_federated(4), Plan::kFoe);
  check_guesses(small_federated(2), Plan::kFoe);
  check_guesses(small_config(), Plan::kEp);
  check_guesses(small_config(), {Plan::kEp, {}, 0, true});
  check_guesses(small_config(), Plan::kTp);
  ModelConfig deep = small_config();
  set_layers(deep, 4);
  check_guesses(deep, Plan::kPp);
}

TEST(Draft, ARightGuessSavesSteps) {
  const RandomModel folder(small_config());
  Request r = request(1, 3, 60);
  r.sampling.logit_bias = {{5, 100.0f}};  // the output is 5, 5, 5, ...
  with_engine(folder.path(), 1, {.max_draft = 16}, [&](Engine& engine) {
    engine.submit(r);
    int steps = 0;
    std::vector<std::int32_t> output;
    for (; !engine.idle(); ++steps)
      for (const TokenEvent& event : engine.step()) output.push_back(event.token);
    EXPECT_EQ(output, std::vector<std::int32_t>(60, 5));
    // Four steps until the text has repeated itself, then guesses of 4, 8, 16 and 16 tokens and of what is left.
    EXPECT_EQ(steps, 9);
    EXPECT_EQ(engine.scheduler().stats().drafted_tokens, engine.scheduler().stats().accepted_tokens);
  });
}

// A grammar sees what the output has, and nothing of a wrong guess.
TEST(Draft, KeepsToAGrammar) {
  ModelConfig config = small_config();
  config.vocab_size = 561;
  const RandomModel folder(config);
  const auto tokens = std::make_shared<TokenTable>(gpt2_tokenizer(), config.vocab_size);
  std::vector<Request> requests;
  for (int id = 1; id <= 6; ++id) {
    Request& r = requests.emplace_back(request(id, 5, 150, 1.0f));
    r.stop_ids = {560};
    r.constraint = {
        Constraint::Kind::kJsonSchema,
        R"({"type": "array", "minItems": 4, "maxItems": 9, "items": {"enum": ["red and green", "redder"]}})"};
  }
  std::map<std::int64_t, Answer> expected;
  for (const int draft : {0, 5, 30})
    for (const int ranks : {1, 2})
      with_engine(folder.path(), Plan::kEp, ranks, {.kv_tokens = 2048, .max_draft = draft}, [&](Engine& engine) {
        engine.allow_constraints(tokens);
        const std::map<std::int64_t, Answer> all = answers(engine, requests);
        if (draft == 0) expected = all;
        EXPECT_EQ(all, expected) << draft << " tokens, " << ranks << " ranks";
        if (draft > 0) {
          EXPECT_GT(engine.scheduler().stats().accepted_tokens, 10);
        }
      });
}

}  // namespace
}  // namespace foe
