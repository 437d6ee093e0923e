// A budget of reasoning: when it is used up, the mark comes that ends it, whatever else runs.
#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"
#include "core/configs.h"
#include "engine/answers.h"
#include "engine/sampler.h"
#include "engine/with_engine.h"

namespace foe {
namespace {

constexpr std::int32_t kBegin = 65, kEnd = 67;

TEST(ReasoningBudget, IsCountedFromTheMarkOrTheBeginning) {
  Request r = request(1, 2, 50);
  const auto ends = [&](std::vector<std::int32_t> output) {
    std::vector<std::int32_t> text = r.prompt.tokens();
    text.insert(text.end(), output.begin(), output.end());
    return must_end_reasoning(r, text);
  };
  r.reasoning = {kBegin, kEnd, true, 2};
  EXPECT_FALSE(ends({}));
  EXPECT_FALSE(ends({1}));
  EXPECT_TRUE(ends({1, 2}));
  EXPECT_FALSE(ends({1, kEnd}));
  EXPECT_FALSE(ends({1, 2, kEnd}));
  r.reasoning.begun = false;
  EXPECT_FALSE(ends({1, 2}));
  EXPECT_FALSE(ends({kBegin, 1}));
  EXPECT_TRUE(ends({kBegin, 1, 2}));
  EXPECT_TRUE(ends({9, 9, 9, kBegin, 1, 2}));
  EXPECT_FALSE(ends({9, 9, 9, 9, kBegin, 1, 2})) << "a mark amid the content";
  EXPECT_FALSE(ends({kBegin, 1, kEnd}));
  r.reasoning = {kBegin, kEnd, true, 0};
  EXPECT_TRUE(ends({}));
  r.reasoning = {kBegin, kEnd, true};
  EXPECT_FALSE(ends({}));
}

// Every way to sample, with a mark that would otherwise hardly come.
std::vector<Request> reasoning_requests() {
  std::vector<Request> requests = every_way_to_sample();
  for (Request& r : requests) {
    r.reasoning = {kBegin, kEnd, true, static_cast<int>(r.id % 9)};
    r.sampling.logit_bias.push_back({kEnd, -100.0f});
    r.stop_ids.clear();
  }
  return requests;
}

TEST(ReasoningBudget, EndsItAtTheSamePlaceHoweverItRuns) {
  const RandomModel folder(small_config());
  const std::vector<Request> requests = reasoning_requests();
  std::map<std::int64_t, Answer> expected;
  with_engine(folder.path(), Plan::kTp, 1, {}, [&](Engine& engine) { expected = answers(engine, requests); });
  for (const Request& r : requests) {
    const std::vector<std::int32_t>& tokens = expected[r.id].tokens;
    ASSERT_GT(tokens.size(), static_cast<std::size_t>(r.reasoning.budget));
    EXPECT_EQ(std::ranges::find(tokens, kEnd) - tokens.begin(), r.reasoning.budget) << r.id;
    EXPECT_EQ(std::ranges::count(tokens, kEnd), 1) << r.id;
    EXPECT_EQ(expected[r.id].logprobs.size(), r.sampling.logprobs >= 0 ? tokens.size() : 0);
  }
  for (const int ranks : {1, 2, 3})
    for (const int draft : {0, 7}) {
      const EngineOptions options{.max_batch_tokens = 40, .max_sequences = 4, .kv_tokens = 400, .max_draft = draft};
      with_engine(folder.path(), Plan::kTp, ranks, options, [&](Engine& engine) {
        EXPECT_EQ(answers(engine, requests), expected) << ranks << " ranks, " << draft;
      });
    }
}

TEST(ReasoningBudget, IsKeptByARequestThatGoesOn) {
  const RandomModel folder(small_config());
  Request r = request(1, 9, 12);
  r.reasoning = {kBegin, kEnd, true, 5};
  with_engine(folder.path(), Plan::kTp, 1, {}, [&](Engine& engine) {
    const std::vector<std::int32_t> whole = answers(engine, {r})[1].tokens;
    EXPECT_EQ(whole.at(5), kEnd);
    for (const std::size_t size : {1u, 5u, 6u, 11u}) {
      Request again = r;
      again.output.assign(whole.begin(), whole.begin() + size);
      EXPECT_EQ(answers(engine, {again})[1].tokens, std::vector(whole.begin() + size, whole.end())) << size;
    }
  });
}

TEST(ReasoningBudget, NeedsMarksOfTheVocabulary) {
  Request r = request(1, 2, 5);
  const auto refusal = [&](ReasoningMarks marks) -> std::string {
    r.reasoning = marks;
    try {
      validate(r, 70);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal({kBegin, kEnd, false, 0}), "accepted");
  EXPECT_EQ(refusal({-1, kEnd, true, 0}), "accepted");
  EXPECT_EQ(refusal({-1, -1, false, -1}), "accepted");
  EXPECT_EQ(refusal({-1, kEnd, false, 0}), "reasoning: expected an id in [0, 70), got -1");
  EXPECT_EQ(refusal({kBegin, 70, true, 0}), "reasoning: expected an id in [0, 70), got 70");
  EXPECT_EQ(refusal({kBegin, kEnd, true, -2}), "reasoning: expected a budget of -1 (any) or more tokens, got -2");
}

}  // namespace
}  // namespace foe
