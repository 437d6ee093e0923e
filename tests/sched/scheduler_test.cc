#include "sched/scheduler.h"

#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

Request request(std::int64_t id, int prompt, int max_tokens) {
  Request r;
  r.id = id;
  for (int i = 0; i < prompt; ++i) r.prompt.push_back(static_cast<std::int32_t>(100 * id + i));
  r.max_tokens = max_tokens;
  return r;
}

std::vector<SampledToken> chosen(const std::vector<std::int32_t>& tokens) {
  std::vector<SampledToken> sampled;
  for (const std::int32_t token : tokens) sampled.push_back({token});
  return sampled;
}

constexpr SchedulerLimits kLimits{.kv_blocks = 8, .max_tokens = 10, .max_sequences = 3, .max_positions = 200};

TEST(BlockAllocator, HandsOutEachBlockOnceUntilItIsReleased) {
  BlockAllocator allocator(5);
  const auto a = allocator.allocate(3), b = allocator.allocate(2);
  std::set<std::int32_t> all(a.begin(), a.end());
  all.insert(b.begin(), b.end());
  EXPECT_EQ(all, (std::set<std::int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(allocator.available(), 0);
  allocator.release(a);
  EXPECT_EQ(allocator.available(), 3);
}

TEST(BlockAllocatorDeathTest, RefusesWhatItDoesNotHave) {
  BlockAllocator allocator(2);
  EXPECT_DEATH(allocator.allocate(3), "3 of 2 blocks");
  const auto a = allocator.allocate(1);
  allocator.release(a);
  EXPECT_DEATH(allocator.release(a), "is free already");
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  Scheduler s(kLimits);
  const auto adding = [&](Request r) { return [&s, r] { s.add(r); }; };
  EXPECT_THAT(adding(request(1, 0, 5)), ThrowsMessage<Error>(HasSubstr("prompt: expected at least one token")));
  EXPECT_THAT(adding(request(1, 5, 0)), ThrowsMessage<Error>(HasSubstr("max_tokens: expected at least 1, got 0")));
  EXPECT_THAT(adding(request(1, 150, 51)),
              ThrowsMessage<Error>(HasSubstr("maximum context length is 200 tokens, but 201")));
  EXPECT_THAT(adding(request(1, 120, 10)), ThrowsMessage<Error>(HasSubstr("KV cache holds 128 tokens")));
  Request done = request(1, 3, 2);
  done.output = {1, 2};
  EXPECT_THAT(adding(done), ThrowsMessage<Error>(HasSubstr("expected fewer than max_tokens = 2 output tokens")));
  EXPECT_TRUE(s.idle());
}

TEST(Scheduler, CutsAPromptIntoChunksAndSamplesAfterTheLast) {
  Scheduler s(kLimits);
  s.add(request(1, 25, 2));
  for (const auto& [first, count, sampled] : {std::tuple{0, 10, 0}, {10, 10, 0}, {20, 5, 1}}) {
    const Batch& b = s.next();
    EXPECT_EQ(b.num_tokens(), count);
    EXPECT_EQ(b.positions.front(), first);
    EXPECT_EQ(b.tokens.front(), 100 + first);
    EXPECT_EQ(b.num_sampled(), sampled);
    const auto events = s.commit(chosen(std::vector<std::int32_t>(sampled, 7)));
    EXPECT_EQ(static_cast<int>(events.size()), sampled);
  }
  const Batch& b = s.next();
  EXPECT_EQ(b.tokens, std::vector<std::int32_t>{7});
  EXPECT_EQ(b.positions, std::vector<std::int32_t>{25});
  const auto events = s.commit(chosen({9}));
  EXPECT_EQ(events.at(0).finish, FinishReason::kLength);
  EXPECT_TRUE(s.idle());
}

TEST(Scheduler, DecodesBeforeItGivesPromptsTheRest) {
  Scheduler s(kLimits);
  s.add(request(1, 2, 5));
  s.next();
  s.commit(chosen({7}));
  s.add(request(2, 30, 1));
  const Batch& b = s.next();
  EXPECT_EQ(b.num_sequences(), 2);
  EXPECT_EQ(b.tokens[0], 7);
  EXPECT_EQ(b.num_tokens(), 10);  // one decoded token, nine of the prompt
  EXPECT_EQ(s.sampled(0).request->id, 1);
  EXPECT_EQ(s.sampled(0).position, 2);
}

TEST(Scheduler, StopsAtAStopToken) {
  Scheduler s(kLimits);
  Request r = request(1, 2, 5);
  r.stop_ids = {42};
  s.add(r);
  s.next();
  EXPECT_EQ(s.commit(chosen({42})).at(0).finish, FinishReason::kStop);
  EXPECT_TRUE(s.idle());
}

TEST(Scheduler, AResubmittedRequestGoesOnBehindItsOutput) {
  Scheduler s(kLimits);
  Request r = request(1, 3, 6);
  r.output = {50, 51};
  s.add(r);
  const Batch& b = s.next();
  EXPECT_EQ(b.tokens, (std::vector<std::int32_t>{100, 101, 102, 50, 51}));
  EXPECT_EQ(s.sampled(0).position, 4);
}

// Rows whose logits are wanted are few: a prompt comes in smaller chunks if all its rows are.
TEST(Scheduler, CollectsTheLogprobsOfAPromptUntilItsFirstToken) {
  SchedulerLimits limits = kLimits;
  limits.max_sampled = 6;
  Scheduler s(limits);
  Request r = request(1, 12, 2);
  r.sampling.prompt_logprobs = 0;
  s.add(r);
  s.add(request(2, 3, 1));
  std::vector<TokenEvent> events;
  for (const auto& [first, count, others] : {std::tuple{0, 5, 3}, {5, 6, 0}, {11, 1, 0}}) {
    const Batch& b = s.next();
    ASSERT_EQ(b.sequence_begin[1], count);
    EXPECT_EQ(b.num_tokens(), count + others);
    ASSERT_EQ(b.num_sampled(), count + (others > 0));
    std::vector<SampledToken> tokens(b.num_sampled());
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(s.sampled(i).request->id, 1);
      EXPECT_EQ(s.sampled(i).position, first + i);
      tokens[i] = {7, LogprobEntry{static_cast<float>(-first - i), {}}};
    }
    events = s.commit(tokens);
    EXPECT_EQ(events.size(), others > 0 || first == 11 ? 1u : 0u);
  }
  EXPECT_EQ(events[0].token, 7);
  EXPECT_EQ(events[0].logprobs->logprob, -11.0f);
  ASSERT_EQ(events[0].prompt.size(), 11u);
  for (int i = 0; i < 11; ++i) EXPECT_EQ(events[0].prompt[i].logprob, static_cast<float>(-i));
  s.next();
  EXPECT_TRUE(s.commit(chosen({9})).at(0).prompt.empty());

  r.output = {50};  // its prompt was reported with that
  s.add(r);
  EXPECT_EQ(s.next().num_sampled(), 0);
}

TEST(Scheduler, AbortedRequestsGiveTheirBlocksBack) {
  Scheduler s(kLimits);
  s.add(request(1, 100, 28));  // all eight blocks
  s.add(request(2, 4, 4));
  s.next();
  s.commit({});
  EXPECT_EQ(s.num_waiting(), 1);
  s.abort(1);
  EXPECT_EQ(s.next().tokens.front(), 200);
  s.abort(2);
  s.abort(77);  // unknown: it may just have ended
  EXPECT_TRUE(s.idle());
}

std::int64_t request_of(const Batch& batch, int sequence) {
  return batch.tokens[batch.sequence_begin[sequence]] / 100;
}

SchedulerLimits limits_for(int owners) {
  SchedulerLimits limits = kLimits;
  limits.owners = owners;
  return limits;
}

TEST(Scheduler, SpreadsEqualRequestsEvenly) {
  SchedulerLimits limits = limits_for(3);
  limits.max_sequences = 6;
  Scheduler s(limits);
  for (int id = 1; id <= 12; ++id) s.add(request(id, 1, 5));
  while (!s.idle()) {
    const Batch& b = s.next();
    EXPECT_EQ(b.sequence_owner, (std::vector<std::int32_t>{0, 0, 1, 1, 2, 2}));
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < b.num_sampled(); ++i)
      tokens.push_back(static_cast<std::int32_t>(100 * s.sampled(i).request->id));
    s.commit(chosen(tokens));
  }
}

TEST(Scheduler, ARequestGoesWhereMostBlocksAreFree) {
  SchedulerLimits limits = limits_for(2);
  limits.max_sequences = 4;
  limits.max_tokens = 300;
  Scheduler s(limits);
  s.add(request(1, 70, 10));  // five of eight blocks, of owner 0: the first among equals
  s.add(request(2, 20, 1));   // two of owner 1's
  s.add(request(3, 20, 1));   // two more of owner 1's
  s.add(request(4, 60, 4));   // four of owner 1's; owner 0 has three left
  const Batch& b = s.next();
  EXPECT_EQ(b.sequence_owner, (std::vector<std::int32_t>{0, 1, 1, 1}));
  for (int q = 0; q < 4; ++q) EXPECT_EQ(request_of(b, q), q + 1);
}

TEST(Scheduler, NothingOvertakesARequestThatFitsNowhere) {
  Scheduler s(limits_for(2));
  s.add(request(1, 70, 10));
  s.add(request(2, 70, 10));
  s.add(request(3, 70, 10));  // five blocks: three are left with either owner
  s.add(request(4, 1, 1));
  s.next();
  EXPECT_EQ(s.num_running(), 2);
  s.commit({});
  s.abort(2);
  const Batch& b = s.next();
  EXPECT_EQ(s.num_running(), 3);
  EXPECT_EQ(b.sequence_owner, (std::vector<std::int32_t>{0, 0, 1}));
  EXPECT_EQ(request_of(b, 0), 4);  // its one token counts as decoding
  EXPECT_EQ(request_of(b, 1), 1);
  EXPECT_EQ(request_of(b, 2), 3);
}

// A step lasts as long as its busiest owner.
TEST(Scheduler, PromptsOfDifferentOwnersShareTheBudgetEvenly) {
  const auto counts = [](const Batch& b) {
    std::vector<int> tokens(2);
    for (int q = 0; q < b.num_sequences(); ++q)
      tokens[b.sequence_owner[q]] += b.sequence_begin[q + 1] - b.sequence_begin[q];
    return tokens;
  };
  Scheduler s(limits_for(2));
  s.add(request(1, 17, 1));
  EXPECT_EQ(counts(s.next()), (std::vector<int>{10, 0}));  // alone: all of it
  s.commit({});
  s.add(request(2, 8, 3));
  EXPECT_EQ(counts(s.next()), (std::vector<int>{5, 5}));
  s.commit({});
  s.add(request(3, 30, 1));                               // owner 1's, whose first request ends its prompt
  EXPECT_EQ(counts(s.next()), (std::vector<int>{2, 8}));  // what owner 0 leaves goes to owner 1
  EXPECT_EQ(s.sampled(0).request->id, 1);
  EXPECT_EQ(s.sampled(1).request->id, 2);
}

TEST(Scheduler, DecodesBeforeItGivesPromptsOfOtherOwnersTheRest) {
  Scheduler s({.kv_blocks = 8, .max_tokens = 4, .max_sequences = 4, .max_positions = 200, .owners = 2});
  s.add(request(1, 100, 28));                                // all of owner 0's blocks
  for (int id = 2; id <= 4; ++id) s.add(request(id, 1, 5));  // more than half of the budget
  const Batch& b = s.next();
  EXPECT_EQ(b.sequence_owner, (std::vector<std::int32_t>{0, 1, 1, 1}));
  EXPECT_EQ(b.tokens, (std::vector<std::int32_t>{100, 200, 300, 400}));
}

// Random arrivals and aborts: every request runs each of its positions once and in order, with one owner; no KV block
// belongs to two requests, the budget holds, the oldest request is in every step, and everything ends.
void run_random_workload(const SchedulerLimits& limits, std::uint64_t seed) {
  Scheduler s(limits);
  std::map<std::int64_t, int> next_position, outputs, wanted, owner_of;
  std::uint64_t draw = 0;
  const auto random = [&](int n) { return static_cast<int>(random_bits(seed, draw++) % n); };
  std::int64_t id = 0;
  for (int step = 0; step < 5000 && (step < 200 || !s.idle()); ++step) {
    if (step < 200 && random(3) == 0) {
      const Request r = request(++id, 1 + random(60), 1 + random(30));
      wanted[id] = r.max_tokens;
      s.add(r);
    }
    if (random(20) == 0) {
      const std::int64_t gone = 1 + random(static_cast<int>(id) + 1);
      s.abort(gone);
      wanted.erase(gone);
    }
    const Batch b = s.next();
    ASSERT_EQ(b.empty(), s.idle());
    ASSERT_LE(b.num_tokens(), limits.max_tokens);
    ASSERT_LE(b.num_sequences(), limits.max_sequences);
    ASSERT_NO_THROW(decode(encode(b), 1 << 30, limits.kv_blocks, limits.owners));  // owners ascend, too

    // Tokens name their request, while it runs its prompt; decoded tokens carry the id, too.
    std::set<std::pair<int, std::int32_t>> blocks;
    std::set<std::int64_t> requests;
    for (int q = 0; q < b.num_sequences(); ++q) {
      const std::int64_t runs = request_of(b, q);
      requests.insert(runs);
      ASSERT_EQ(owner_of.try_emplace(runs, b.sequence_owner[q]).first->second, b.sequence_owner[q]);
      for (int i = b.table_begin[q]; i < b.table_begin[q + 1]; ++i)
        ASSERT_TRUE(blocks.emplace(b.sequence_owner[q], b.block_table[i]).second) << "block " << b.block_table[i];
      for (int t = b.sequence_begin[q]; t < b.sequence_begin[q + 1]; ++t)
        ASSERT_EQ(b.positions[t], next_position[b.tokens[t] / 100]++);
    }
    ASSERT_TRUE(wanted.empty() || requests.contains(wanted.begin()->first)) << "step " << step;
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < b.num_sampled(); ++i) {
      ASSERT_EQ(s.sampled(i).request->id, b.tokens[b.sampled_rows[i]] / 100);
      tokens.push_back(static_cast<std::int32_t>(100 * s.sampled(i).request->id + 99));
    }
    for (const TokenEvent& e : s.commit(chosen(tokens))) {
      ++outputs[e.id];
      ASSERT_EQ(e.finish.has_value(), outputs[e.id] == wanted[e.id]);
      if (e.finish) wanted.erase(e.id);
    }
  }
  ASSERT_TRUE(s.idle());
  ASSERT_TRUE(wanted.empty());

  // All blocks are free again: a request for all of them fits with every owner.
  for (int i = 0; i < limits.owners; ++i) s.add(request(++id, limits.kv_blocks * kKvBlock - 1, 1));
  s.next();
  EXPECT_EQ(s.num_running(), limits.owners);
}

TEST(Scheduler, RandomWorkloadsKeepTheInvariants) {
  for (const int owners : {1, 2, 3})
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
      SCOPED_TRACE(testing::Message() << owners << " owners, seed " << seed);
      ASSERT_NO_FATAL_FAILURE(run_random_workload(limits_for(owners), seed));
    }
}

}  // namespace
}  // namespace foe
