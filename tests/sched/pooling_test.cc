// Requests that want the states of their prompts instead of an output.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "sched/requests.h"

namespace foe {
namespace {

using testing::ElementsAre;

Request pooled(std::int64_t id, int prompt, Pooling pooling) {
  Request r = request(id, prompt, 0);
  r.pooling = pooling;
  return r;
}

constexpr SchedulerLimits kPoolingLimits{.kv_blocks = 8, .max_tokens = 10, .max_sequences = 3, .max_positions = 100};

// The positions of the rows that a step has, after which it is committed with a state for each.
std::vector<int> positions_of_step(Scheduler& s, std::vector<TokenEvent>& events) {
  const ScheduledStep step = s.next();
  s.check();
  std::vector<int> positions;
  std::vector<SampledToken> tokens;
  for (const SampledRow& row : step.rows) {
    positions.push_back(row.position());
    tokens.push_back({.state = {static_cast<float>(row.position())}});
  }
  for (TokenEvent& event : s.commit(tokens)) events.push_back(std::move(event));
  s.check();
  return positions;
}

TEST(Pooling, WantsTheLastRowOrAllAndEndsWithThePrompt) {
  for (const Pooling pooling : {Pooling::kLast, Pooling::kMean}) {
    const bool mean = pooling == Pooling::kMean;
    Scheduler s(kPoolingLimits);
    s.add(pooled(1, 14, pooling));
    std::vector<TokenEvent> events;
    // More rows than there may be rows of logits.
    EXPECT_EQ(positions_of_step(s, events), (mean ? std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9} : std::vector<int>{}));
    EXPECT_TRUE(events.empty());
    EXPECT_EQ(positions_of_step(s, events), (mean ? std::vector{10, 11, 12, 13} : std::vector{13}));
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].finish, FinishReason::kStop);
    EXPECT_THAT(events[0].state, ElementsAre(13.0f));
    EXPECT_TRUE(s.idle());
    EXPECT_EQ(s.stats().blocks_in_use, 0);
    EXPECT_EQ(s.stats().generation_tokens, 0);
    EXPECT_EQ(s.stats().prompt_tokens, 14);
  }
}

// The state of the last token alone may be computed from cached blocks; a mean needs each position's.
TEST(Pooling, AMeanSkipsNoCachedPositions) {
  Scheduler s({.kv_blocks = 8, .max_tokens = 64, .max_sequences = 3, .max_positions = 100});
  s.add(pooled(1, 33, Pooling::kLast));
  std::vector<TokenEvent> events;
  positions_of_step(s, events);
  Request last = pooled(1, 33, Pooling::kLast), mean = pooled(1, 33, Pooling::kMean);
  s.add(last);
  EXPECT_THAT(positions_of_step(s, events), ElementsAre(32));
  EXPECT_EQ(events.back().cached_tokens, 32);
  EXPECT_EQ(s.stats().tokens_run, 34);
  s.add(mean);
  EXPECT_EQ(positions_of_step(s, events).size(), 33u);
  EXPECT_EQ(events.back().cached_tokens, 0);
  EXPECT_EQ(s.stats().prefix_queries, 66);  // it has not asked
}

// What a preempted mean has taken is not taken again, and its keys and values may come from the cache.
TEST(Pooling, APreemptedMeanGoesOnBehindWhatItHasTaken) {
  Scheduler s({.kv_blocks = 4, .max_tokens = 20, .max_sequences = 1, .max_positions = 100});
  s.add(pooled(1, 50, Pooling::kMean));
  std::vector<TokenEvent> events;
  EXPECT_EQ(positions_of_step(s, events).size(), 20u);
  s.add(request(2, 60, 1, -1));  // takes its place, and its blocks
  while (events.empty()) positions_of_step(s, events);
  EXPECT_EQ(s.stats().preemptions, 1);
  events.clear();
  std::vector<int> positions;
  while (events.empty())
    for (const int position : positions_of_step(s, events)) positions.push_back(position);
  ASSERT_EQ(positions.size(), 30u);
  EXPECT_EQ(positions.front(), 20);
  EXPECT_TRUE(std::ranges::is_sorted(positions));
}

TEST(Pooling, FillsTheContextAndNoMore) {
  Scheduler s({.kv_blocks = 8, .max_positions = 100});
  s.add(pooled(1, 100, Pooling::kLast));
  EXPECT_THAT([&] { s.add(pooled(2, 101, Pooling::kLast)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("maximum context length is 100 tokens, but 101")));
  s.add(request(3, 16, 1));  // beside it, one that has an output
  std::vector<TokenEvent> events;
  while (!s.idle()) {
    const ScheduledStep step = s.next();
    std::vector<SampledToken> tokens;
    for (const SampledRow& row : step.rows) tokens.push_back({token_behind(row)});
    for (TokenEvent& event : s.commit(tokens)) events.push_back(std::move(event));
    s.check();
  }
  EXPECT_EQ(events.size(), 2u);
}

}  // namespace
}  // namespace foe
