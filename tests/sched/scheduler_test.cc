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
    const auto events = s.commit(std::vector<std::int32_t>(sampled, 7));
    EXPECT_EQ(static_cast<int>(events.size()), sampled);
  }
  const Batch& b = s.next();
  EXPECT_EQ(b.tokens, std::vector<std::int32_t>{7});
  EXPECT_EQ(b.positions, std::vector<std::int32_t>{25});
  const auto events = s.commit(std::vector<std::int32_t>{9});
  EXPECT_EQ(events.at(0).finish, FinishReason::kLength);
  EXPECT_TRUE(s.idle());
}

TEST(Scheduler, DecodesBeforeItGivesPromptsTheRest) {
  Scheduler s(kLimits);
  s.add(request(1, 2, 5));
  s.next();
  s.commit(std::vector<std::int32_t>{7});
  s.add(request(2, 30, 1));
  const Batch& b = s.next();
  EXPECT_EQ(b.num_sequences(), 2);
  EXPECT_EQ(b.tokens[0], 7);
  EXPECT_EQ(b.num_tokens(), 10);  // one decoded token, nine of the prompt
  EXPECT_EQ(s.sampled(0).id, 1);
  EXPECT_EQ(s.sampled(0).output_position, 1);
}

TEST(Scheduler, StopsAtAStopToken) {
  Scheduler s(kLimits);
  Request r = request(1, 2, 5);
  r.stop_ids = {42};
  s.add(r);
  s.next();
  EXPECT_EQ(s.commit(std::vector<std::int32_t>{42}).at(0).finish, FinishReason::kStop);
  EXPECT_TRUE(s.idle());
}

TEST(Scheduler, AResubmittedRequestGoesOnBehindItsOutput) {
  Scheduler s(kLimits);
  Request r = request(1, 3, 6);
  r.output = {50, 51};
  s.add(r);
  const Batch& b = s.next();
  EXPECT_EQ(b.tokens, (std::vector<std::int32_t>{100, 101, 102, 50, 51}));
  EXPECT_EQ(s.sampled(0).output_position, 2);
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

// Random arrivals and aborts: every request runs each of its positions once and in order, no KV block has two owners,
// the budget holds, and everything ends.
TEST(Scheduler, RandomWorkloadsKeepTheInvariants) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    Scheduler s(kLimits);
    std::map<std::int64_t, int> next_position, outputs, wanted;
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
      ASSERT_LE(b.num_tokens(), kLimits.max_tokens);
      ASSERT_LE(b.num_sequences(), kLimits.max_sequences);
      std::map<std::int32_t, int> owners;
      for (int q = 0; q < b.num_sequences(); ++q)
        for (int i = b.table_begin[q]; i < b.table_begin[q + 1]; ++i) ++owners[b.block_table[i]];
      for (const auto& [block, count] : owners) ASSERT_EQ(count, 1) << "block " << block;
      ASSERT_NO_THROW(decode(encode(b), 1 << 30, kLimits.kv_blocks, 1));

      // Tokens name their request, while it runs its prompt; decoded tokens carry the id, too.
      for (int q = 0; q < b.num_sequences(); ++q)
        for (int t = b.sequence_begin[q]; t < b.sequence_begin[q + 1]; ++t)
          ASSERT_EQ(b.positions[t], next_position[b.tokens[t] / 100]++);
      std::vector<std::int32_t> tokens;
      for (int i = 0; i < b.num_sampled(); ++i) tokens.push_back(static_cast<std::int32_t>(100 * s.sampled(i).id + 99));
      for (const TokenEvent& e : s.commit(tokens)) {
        ++outputs[e.id];
        ASSERT_EQ(e.finish.has_value(), outputs[e.id] == wanted[e.id]);
        if (e.finish) wanted.erase(e.id);
      }
    }
    EXPECT_TRUE(s.idle()) << "seed " << seed;
    EXPECT_TRUE(wanted.empty()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace foe
