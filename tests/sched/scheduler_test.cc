#include "sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "sched/requests.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::ThrowsMessage;

constexpr SchedulerLimits kLimits{.kv_blocks = 8, .max_tokens = 10, .max_sequences = 3, .max_positions = 200};

SchedulerLimits limits_for(int owners) {
  SchedulerLimits limits = kLimits;
  limits.owners = owners;
  return limits;
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  Scheduler s(kLimits);
  const auto adding = [&](Request r) { return [&s, r] { s.add(r); }; };
  EXPECT_THAT(adding(request(1, 0, 5)), ThrowsMessage<Error>(HasSubstr("prompt: expected at least one token")));
  EXPECT_THAT(adding(request(1, 5, 0)), ThrowsMessage<Error>(HasSubstr("max_tokens: expected at least 1, got 0")));
  EXPECT_THAT(adding(request(1, 150, 51)),
              ThrowsMessage<Error>(HasSubstr("maximum context length is 200 tokens, but 201")));
  EXPECT_THAT(adding(request(1, 1, 2147483647)), ThrowsMessage<Error>(HasSubstr("but 2147483648 were requested")));
  EXPECT_THAT(adding(request(1, 120, 10)), ThrowsMessage<Error>(HasSubstr("KV cache holds 128 tokens")));
  Request done = request(1, 3, 2);
  done.output = {1, 2};
  EXPECT_THAT(adding(done), ThrowsMessage<Error>(HasSubstr("expected fewer than max_tokens = 2 output tokens")));
  EXPECT_TRUE(s.idle());
  s.add(request(1, 3, 2));
  EXPECT_THAT(adding(request(1, 5, 5)), ThrowsMessage<Error>(HasSubstr("request 1 is here already")));
  EXPECT_EQ(s.num_waiting(), 1);
  s.check();
}

TEST(Scheduler, CutsAPromptIntoChunksAndSamplesAfterTheLast) {
  Scheduler s(kLimits);
  s.add(request(1, 25, 2));
  for (const auto& [first, count, sampled] : {std::tuple{0, 10, 0}, {10, 10, 0}, {20, 5, 1}}) {
    const Batch b = s.next().batch;
    EXPECT_EQ(b.num_tokens(), count);
    EXPECT_EQ(b.positions.front(), first);
    EXPECT_EQ(b.tokens.front(), 1000 + first);
    EXPECT_EQ(b.num_sampled(), sampled);
    EXPECT_EQ(b.block_table.size(), static_cast<std::size_t>(blocks_for(first + count)));  // as many as it needs
    EXPECT_EQ(s.stats().blocks_in_use, blocks_for(first + count));
    const auto events = s.commit(std::vector<SampledToken>(sampled, {7}));
    EXPECT_EQ(static_cast<int>(events.size()), sampled);
  }
  const Batch b = s.next().batch;
  EXPECT_EQ(b.tokens, std::vector<std::int32_t>{7});
  EXPECT_EQ(b.positions, std::vector<std::int32_t>{25});
  const auto events = s.commit(std::vector<SampledToken>{{9}});
  EXPECT_EQ(events.at(0).finish, FinishReason::kLength);
  EXPECT_TRUE(s.idle());
  EXPECT_EQ(s.stats().blocks_in_use, 0);
}

TEST(Scheduler, DecodesBeforeItGivesPromptsTheRest) {
  Scheduler s(kLimits);
  s.add(request(1, 2, 5));
  step(s);
  s.add(request(2, 30, 1));
  const auto [b, rows, ids] = s.next();
  EXPECT_EQ(b.num_sequences(), 2);
  EXPECT_EQ(b.tokens[0], 1999);
  EXPECT_EQ(b.num_tokens(), 10);  // one decoded token, nine of the prompt
  EXPECT_EQ(rows[0].request->id, 1);
  EXPECT_EQ(rows[0].position(), 2);
}

TEST(Scheduler, ABatchThatIsNotCommittedIsForgotten) {
  Scheduler s(kLimits);
  s.add(request(1, 25, 2));
  const Batch first = s.next().batch;
  EXPECT_EQ(s.next().batch.positions, first.positions);
}

TEST(Scheduler, StopsAtAStopTokenButNotBeforeMinTokens) {
  for (const int min_tokens : {0, 1, 3}) {
    Scheduler s(kLimits);
    Request r = request(1, 2, 5);
    r.stop_ids = {41, 42};
    r.sampling.min_tokens = min_tokens;
    s.add(r);
    for (int before = 0; !s.idle(); ++before) {
      s.next();
      const TokenEvent event = s.commit(std::vector<SampledToken>{{42}}).at(0);
      EXPECT_EQ(event.finish.has_value(), before == min_tokens);
      EXPECT_NE(event.finish, FinishReason::kLength);
    }
  }
}

// Where a constraint allows nothing but the end, the text ends.
TEST(Scheduler, AConstraintMayEndATextBeforeMinTokens) {
  Scheduler s(kLimits);
  Request r = request(1, 2, 5);
  r.stop_ids = {42};
  r.sampling.min_tokens = 4;
  r.constraint = {Constraint::Kind::kChoice, "[\"a\"]"};
  s.add(r);
  s.next();
  EXPECT_EQ(s.commit(std::vector<SampledToken>{{42}}).at(0).finish, FinishReason::kStop);
}

TEST(Scheduler, AResubmittedRequestGoesOnBehindItsOutput) {
  Scheduler s(kLimits);
  Request r = request(1, 3, 4);
  r.output = {50, 51};
  r.sampling.prompt_logprobs = 0;  // came with the first output token
  s.add(r);
  const auto [b, rows, ids] = s.next();
  EXPECT_EQ(b.tokens, (std::vector<std::int32_t>{1000, 1001, 1002, 50, 51}));
  EXPECT_EQ(b.num_sampled(), 1);
  EXPECT_EQ(rows[0].position(), 4);
  EXPECT_FALSE(commit(s, rows).at(0).finish);
  EXPECT_EQ(drain(s).at(0).finish, FinishReason::kLength);
  EXPECT_EQ(s.stats().generation_tokens, 2);
}

TEST(Scheduler, AbortedRequestsGiveTheirBlocksBackAtOnce) {
  Scheduler s(kLimits);
  s.add(request(1, 100, 28));
  s.add(request(2, 60, 4));  // four blocks, but two are left
  for (int i = 0; i < 5; ++i) step(s);
  EXPECT_EQ(s.num_waiting(), 1);
  s.abort(1);
  EXPECT_EQ(s.stats().blocks_in_use, 0);
  EXPECT_EQ(s.next().batch.tokens.front(), 2000);
  s.abort(2);
  s.abort(77);  // unknown: it may just have ended
  EXPECT_TRUE(s.idle());
}

TEST(Scheduler, ARequestThatIsAbortedWhileItsBatchRunsGivesNoEvent) {
  Scheduler s(kLimits);
  s.add(request(1, 3, 4));
  s.add(request(2, 3, 4));
  const auto [b, rows, ids] = s.next();
  s.abort(1);
  EXPECT_EQ(s.stats().blocks_in_use, 1);
  EXPECT_EQ(rows[0].request->id, 1);  // still named
  s.add(request(1, 5, 1));            // another one
  const auto events = commit(s, rows);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].id, 2);
  EXPECT_THAT(step(s), ElementsAre(Pair(1, 5), Pair(2, 1)));
}

TEST(Scheduler, LogprobsComeBackWithTheTokens) {
  Scheduler s({.kv_blocks = 8, .max_tokens = 10, .max_sequences = 8, .max_sampled = 4, .max_positions = 200});
  Request r = request(1, 7, 2);
  r.sampling.prompt_logprobs = 0;
  s.add(r);
  std::vector<TokenEvent> events;
  std::vector<int> counts;
  while (!s.idle()) {
    const auto [b, rows, ids] = s.next();
    counts.push_back(b.num_sampled());
    std::vector<SampledToken> tokens;
    for (int i = 0; i < b.num_sampled(); ++i)
      tokens.push_back({token_behind(rows[i]), LogprobEntry{static_cast<float>(rows[i].position()), {}}});
    for (TokenEvent& event : s.commit(tokens)) events.push_back(std::move(event));
  }
  EXPECT_THAT(counts, ElementsAre(3, 3, 1, 1));
  ASSERT_EQ(events.size(), 2u);
  ASSERT_EQ(events[0].prompt.size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(events[0].prompt[i].logprob, i);
  EXPECT_EQ(events[0].logprobs->logprob, 6);
  EXPECT_EQ(events[1].logprobs->logprob, 7);
  EXPECT_TRUE(events[1].prompt.empty());
}

TEST(Scheduler, RowsOfLogitsNeverExceedTheirLimit) {
  Scheduler s({.kv_blocks = 32, .max_tokens = 40, .max_sequences = 8, .max_sampled = 2, .max_positions = 200});
  for (int id = 1; id <= 8; ++id) {
    Request r = request(id, 2 + 3 * id, 5);
    if (id % 3 == 0) r.sampling.prompt_logprobs = 1;
    s.add(r);
  }
  int events = 0;
  std::size_t prompt_rows = 0;
  while (!s.idle()) {
    const auto [b, rows, ids] = s.next();
    ASSERT_FALSE(b.empty());
    ASSERT_LE(b.num_sampled(), 2);
    for (const TokenEvent& event : commit(s, rows)) {
      ++events;
      prompt_rows += event.prompt.size();
    }
  }
  EXPECT_EQ(events, 40);
  EXPECT_EQ(prompt_rows, 10u + 19u);
}

TEST(Scheduler, SpreadsEqualRequestsEvenly) {
  SchedulerLimits limits = limits_for(3);
  limits.max_sequences = 6;
  Scheduler s(limits);
  for (int id = 1; id <= 12; ++id) s.add(request(id, 1, 5));
  while (!s.idle()) {
    const auto [b, rows, ids] = s.next();
    EXPECT_EQ(b.sequence_owner, (std::vector<std::int32_t>{0, 0, 1, 1, 2, 2}));
    commit(s, rows);
  }
}

TEST(Scheduler, ARequestGoesWhereLeastIsToBeRun) {
  SchedulerLimits limits = limits_for(2);
  limits.max_sequences = 5;
  limits.max_tokens = 300;
  Scheduler s(limits);
  s.add(request(1, 100, 10));  // of owner 0: the first among equals
  s.add(request(2, 20, 1));    // owner 1's
  s.add(request(3, 20, 1));    // owner 1's, too
  s.add(request(4, 60, 4));    // owner 1's; owner 0 has no more than one block
  s.add(request(5, 60, 4));    // with neither
  const Batch b = s.next().batch;
  EXPECT_EQ(b.sequence_owner, (std::vector<std::int32_t>{0, 1, 1, 1}));
  for (int q = 0; q < 4; ++q) EXPECT_EQ(request_of(b, q), q + 1);
}

TEST(Scheduler, NothingOvertakesARequestThatFitsNowhere) {
  Scheduler s(limits_for(2));
  s.add(request(1, 70, 10));
  s.add(request(2, 70, 10));
  s.add(request(3, 70, 10));  // five blocks: three are left with either owner
  s.add(request(4, 1, 1));
  step(s);
  EXPECT_EQ(s.num_running(), 2);
  s.abort(2);
  EXPECT_THAT(step(s), ElementsAre(Pair(1, 5), Pair(3, 4), Pair(4, 1)));
}

// A step lasts as long as its busiest owner.
TEST(Scheduler, PromptsOfDifferentOwnersShareTheBudgetEvenly) {
  Scheduler s(limits_for(2));
  s.add(request(1, 17, 1));
  EXPECT_THAT(step(s), ElementsAre(Pair(1, 10)));  // alone: all of it
  s.add(request(2, 8, 3));
  EXPECT_THAT(step(s), ElementsAre(Pair(1, 5), Pair(2, 5)));
  s.add(request(3, 30, 1));
  std::vector<TokenEvent> events;
  EXPECT_THAT(step(s, &events), ElementsAre(Pair(1, 2), Pair(2, 3), Pair(3, 5)));
  EXPECT_EQ(events.size(), 2u);
}

TEST(Scheduler, LeavesPromptsAQuarterOfABudgetThatDecodingWouldFill) {
  Scheduler s({.kv_blocks = 32, .max_tokens = 8, .max_sequences = 16, .max_positions = 200});
  for (int id = 1; id <= 10; ++id) s.add(request(id, 1, 20));
  step(s);
  s.add(request(11, 100, 1));
  const auto counts = step(s);
  EXPECT_EQ(counts.at(11), 2);
  for (int id = 1; id <= 6; ++id) EXPECT_EQ(counts.at(id), 1);
}

}  // namespace
}  // namespace foe
