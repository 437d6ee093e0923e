// Requests whose prompts begin alike.
#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sched/requests.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::Pair;

constexpr SchedulerLimits kCacheLimits{.kv_blocks = 32, .max_tokens = 64, .max_sequences = 8, .max_positions = 400};

// `shared` tokens that all of them have, and then `own` ones.
Request alike(std::int64_t id, int shared, int own, int max_tokens = 2) {
  Request r = request(id, own, max_tokens);
  std::vector<std::int32_t> tokens = request(0, shared, 1).prompt.tokens();
  tokens.insert(tokens.end(), r.prompt.begin(), r.prompt.end());
  r.prompt = std::move(tokens);
  return r;
}

int cached(const std::vector<TokenEvent>& events, std::int64_t id) {
  for (const TokenEvent& event : events)
    if (event.id == id) return event.cached_tokens;
  return -1;
}

TEST(PrefixCache, FindsFullBlocksButRunsTheLastToken) {
  Scheduler s(kCacheLimits);
  s.add(alike(1, 48, 0));
  EXPECT_EQ(cached(drain(s), 1), 0);
  for (const auto& [id, shared, own, hits] :
       {std::tuple{2, 48, 0, 32}, {3, 48, 1, 48}, {4, 47, 20, 32}, {5, 15, 30, 0}}) {
    s.add(alike(id, shared, own));
    const auto [b, rows, ids] = s.next();
    EXPECT_EQ(b.positions.front(), hits);
    EXPECT_EQ(b.num_tokens(), shared + own - hits);
    auto events = commit(s, rows);
    for (TokenEvent& event : drain(s)) events.push_back(std::move(event));
    for (const TokenEvent& event : events) EXPECT_EQ(event.cached_tokens, hits);
  }
  EXPECT_EQ(s.stats().prefix_queries, 48 + 48 + 49 + 67 + 45);
  EXPECT_EQ(s.stats().prefix_hits, 32 + 48 + 32);
  EXPECT_EQ(s.stats().prompt_tokens, 48 + 48 + 49 + 67 + 45);
}

// So nobody learns from `cached_tokens` what others have asked.
TEST(PrefixCache, RequestsWithDifferentSaltsShareNothing) {
  Scheduler s(kCacheLimits);
  constexpr std::uint64_t kLarge = ~std::uint64_t{0};
  const auto salted = [](std::int64_t id, std::uint64_t salt) {
    Request r = alike(id, 48, 1);
    r.cache_salt = salt;
    return r;
  };
  std::int64_t id = 0;
  for (const auto& [salt, hits] :
       {std::pair{std::uint64_t{0}, 0}, {12, 0}, {kLarge, 0}, {0, 48}, {12, 48}, {kLarge, 48}}) {
    s.add(salted(++id, salt));
    EXPECT_EQ(cached(drain(s), id), hits) << salt;
  }
  // Nor do they wait for what the others are about to compute.
  s.add(alike(++id, 200, 1));
  Request other = alike(++id, 200, 1);
  other.cache_salt = 9;
  s.add(other);
  s.next();
  EXPECT_EQ(s.num_running(), 2);
}

TEST(PrefixCache, OutputIsFoundToo) {
  Scheduler s(kCacheLimits);
  s.add(request(1, 10, 30));
  drain(s);
  Request r = request(2, 1, 1);
  std::vector<std::int32_t> prompt = request(1, 10, 1).prompt.tokens();
  prompt.resize(60, 1999);
  r.prompt = std::move(prompt);
  s.add(r);
  EXPECT_EQ(s.next().batch.positions.front(), 32);  // 39 positions were run: the last output token has none
}

TEST(PrefixCache, CanBeTurnedOff) {
  SchedulerLimits limits = kCacheLimits;
  limits.prefix_caching = false;
  Scheduler s(limits);
  for (int id = 1; id <= 3; ++id) {
    s.add(alike(id, 48, 0));
    EXPECT_EQ(cached(drain(s), id), 0);
  }
  EXPECT_EQ(s.stats().prefix_queries, 0);
}

TEST(PrefixCache, RequestsForLogprobsOfThePromptRunAllOfIt) {
  Scheduler s(kCacheLimits);
  s.add(alike(1, 48, 0));
  drain(s);
  Request r = alike(2, 48, 3);
  r.sampling.prompt_logprobs = 0;
  s.add(r);
  EXPECT_EQ(s.stats().prefix_queries, 48);
  std::vector<TokenEvent> events = drain(s);
  EXPECT_EQ(cached(events, 2), 0);
  EXPECT_EQ(events[0].prompt.size(), 50u);
  EXPECT_EQ(s.stats().prefix_queries, 48);
}

TEST(PrefixCache, RequestsForLogprobsFromATokenOnShareWhatIsBefore) {
  Scheduler s(kCacheLimits);
  s.add(alike(1, 48, 0));
  drain(s);
  for (const int from : {1, 17, 34, 51}) {  // of 51 tokens: all that can be reported, from the third block on, and none
    Request r = alike(10 + from, 48, 3);
    r.sampling.prompt_logprobs = 0;
    r.sampling.prompt_logprobs_from = from;
    s.add(r);
    const std::vector<TokenEvent> events = drain(s);
    EXPECT_EQ(cached(events, 10 + from), (from - 1) / 16 * 16);
    EXPECT_EQ(events[0].prompt.size(), 51u - from);
  }
}

TEST(PrefixCache, PromptsThatArriveTogetherAreComputedOnce) {
  for (const int owners : {1, 2}) {
    SchedulerLimits limits = kCacheLimits;
    limits.owners = owners;
    Scheduler s(limits);
    for (int id = 1; id <= 4; ++id) s.add(alike(id, 200, 0, 3));  // n = 4
    s.add(alike(5, 170, 30, 3));                                  // and one with the same system prompt
    int tokens = 0;
    std::vector<TokenEvent> events;
    while (!s.idle()) {
      const auto [b, rows, ids] = s.next();
      tokens += b.num_tokens();
      for (int q = 0; q < b.num_sequences(); ++q) EXPECT_EQ(b.sequence_owner[q], 0);
      for (TokenEvent& event : commit(s, rows)) events.push_back(std::move(event));
    }
    EXPECT_EQ(tokens, 200 + 3 * 8 + 40 + 5 * 2);
    for (int id = 1; id <= 5; ++id) EXPECT_EQ(cached(events, id), id == 1 ? 0 : id == 5 ? 160 : 192);
  }
}

// What a record routes has other keys and values than what the router does.
TEST(PrefixCache, ARequestWithARouteSharesNothing) {
  const auto routed = [](std::int64_t id) {
    Request r = alike(id, 200, 0);
    SequenceRoute route{.model = "", .tokens = {}, .route = {1, 1, std::vector<std::int32_t>(150), {}}};
    route.route.weights_TLK.resize(150, 1.0f);
    r.route = std::make_shared<const SequenceRoute>(std::move(route));
    return r;
  };
  Scheduler s(kCacheLimits);
  s.add(routed(1));
  const auto [batch, rows, ids] = s.next();
  EXPECT_EQ(batch.route_rows.size(), 64u);
  EXPECT_THAT(ids, ElementsAre(1));
  commit(s, rows);
  s.add(alike(2, 200, 0));  // waits neither for it nor finds its blocks
  EXPECT_EQ(step(s).size(), 1u);
  EXPECT_EQ(s.num_running(), 2);
  EXPECT_EQ(cached(drain(s), 2), 0);
  s.add(routed(3));
  EXPECT_EQ(cached(drain(s), 3), 0);
  s.add(alike(4, 200, 0));
  EXPECT_EQ(cached(drain(s), 4), 192);  // of request 2
  EXPECT_EQ(s.stats().prefix_queries, 2 * 200);
}

// Where RoPE goes by the length of the prompt, keys of a long one are not those of another that begins like it.
TEST(PrefixCache, LongPromptsShareNothingWhereTheirLengthCounts) {
  SchedulerLimits limits = kCacheLimits;
  limits.alike_positions = 40;
  Scheduler s(limits);
  for (const int id : {1, 2}) {
    s.add(alike(id, 48, 0));
    const auto [batch, rows, ids] = s.next();
    EXPECT_EQ(batch.positions.front(), 0);
    EXPECT_EQ(batch.prompt_lengths, std::vector<std::int32_t>{48});
    commit(s, rows);
    drain(s);
  }
  for (const auto& [id, hits] : {std::pair{3, 0}, {4, 32}}) {
    s.add(alike(id, 40, 0));
    const auto [batch, rows, ids] = s.next();
    EXPECT_EQ(batch.positions.front(), hits);
    EXPECT_TRUE(batch.prompt_lengths.empty());
    commit(s, rows);
    drain(s);
  }
}

TEST(PrefixCache, WhoWaitsForOthersGoesOnWithoutThem) {
  Scheduler s(kCacheLimits);
  s.add(alike(1, 200, 0));
  s.add(alike(2, 200, 0));
  step(s);
  EXPECT_EQ(s.num_waiting(), 1);
  s.abort(1);
  const Batch b = s.next().batch;
  EXPECT_EQ(b.positions.front(), 64);
  EXPECT_EQ(b.num_tokens(), 64);
}

TEST(PrefixCache, WhoWaitsForOthersDoesNotHoldUpThoseBehind) {
  Scheduler s(kCacheLimits);
  for (const int id : {1, 2}) s.add(alike(id, 200, 0));
  s.add(request(3, 5, 1));
  s.next();
  EXPECT_EQ(s.num_running(), 2);
  EXPECT_EQ(s.num_waiting(), 1);
}

TEST(PrefixCache, NobodyWaitsForARequestBehind) {
  SchedulerLimits limits = kCacheLimits;
  limits.max_tokens = 20;
  Scheduler s(limits);
  Request last = alike(1, 200, 0), first = alike(2, 200, 0);
  last.priority = 5;
  s.add(last);
  step(s);
  s.add(first);
  const Batch b = s.next().batch;
  EXPECT_EQ(s.num_running(), 2);
  EXPECT_EQ(b.num_tokens(), 20);
  EXPECT_EQ(b.positions.front(), 16);  // the first block was there
}

// How many of `count` requests for a prompt that owner 1 has in its cache each owner runs.
std::map<std::int32_t, std::size_t> run_alike(int count) {
  SchedulerLimits limits = kCacheLimits;
  limits.owners = 2;
  limits.max_sequences = 16;
  Scheduler s(limits);
  s.add(request(7, 1, 1));
  s.add(alike(1, 100, 0, 1));
  drain(s);
  for (int id = 10; id < 10 + count; ++id) s.add(alike(id, 100, 1, 40));
  std::map<std::int32_t, std::set<std::int32_t>> last_tokens;  // they name the request
  while (!s.idle()) {
    const auto [b, rows, ids] = s.next();
    for (int q = 0; q < b.num_sequences(); ++q)
      last_tokens[b.sequence_owner[q]].insert(b.tokens[b.sequence_begin[q + 1] - 1] / 1000);
    commit(s, rows);
  }
  for (auto& [owner, ids] : last_tokens) ids.erase(0);  // of the prompt they share
  return {{0, last_tokens[0].size()}, {1, last_tokens[1].size()}};
}

TEST(PrefixCache, ARequestGoesToTheOwnerThatHasItsPromptUnlessThatIsOverloaded) {
  EXPECT_THAT(run_alike(5), ElementsAre(Pair(0, 0), Pair(1, 5)));
  EXPECT_THAT(run_alike(12), ElementsAre(Pair(0, 6), Pair(1, 6)));
}

}  // namespace
}  // namespace foe
