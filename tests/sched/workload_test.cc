// Random workloads: whatever arrives, goes, and runs out, each request gets the tokens that it gets alone, in time.
#include <algorithm>
#include <map>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "sched/fake_model.h"
#include "sched/scheduler.h"

namespace foe {
namespace {

struct Mix {
  std::uint64_t seed = 0;
  SchedulerLimits limits = {};
  int arrive_steps = 300;        // requests arrive in so many steps
  int arrive_every = 3;          // one in so many of these steps
  int prompt = 60, output = 30;  // at most
  int priorities = 1;
  int period = 0;  // if not 0, texts repeat after so many tokens, most of the time
};

class Workload {
 public:
  explicit Workload(const Mix& mix)
      : mix_(mix),
        scheduler_(mix.limits),
        model_(mix.limits.owners, mix.limits.lanes * mix.limits.kv_blocks),
        under_way_(mix.limits.lanes) {}

  void run() {
    // Whoever waits, or is preempted, runs again no more than all that there is.
    for (step_ = 0; step_ < mix_.arrive_steps || !alive_.empty(); ++step_) {
      ASSERT_LT(step_, 20000) << "starved: request " << alive_.begin()->first;
      ASSERT_NO_FATAL_FAILURE(change_requests());
      ASSERT_NO_FATAL_FAILURE(run_step());
    }
    ASSERT_TRUE(scheduler_.idle());
    ASSERT_EQ(scheduler_.stats().blocks_in_use, 0);
  }

  SchedulerStats stats() const { return scheduler_.stats(); }
  int cut_short() const { return aborted_in_flight_; }
  int most_under_way() const { return most_under_way_; }

 private:
  struct Alive {
    Request request;  // with its output
    std::size_t prompt_rows = 0;
    int since = 0;
  };

  int random(int n) { return static_cast<int>(random_bits(mix_.seed, draw_++) % n); }

  Request random_request() {
    Request r;
    r.priority = random(mix_.priorities) - mix_.priorities / 2;
    r.max_tokens = 1 + random(mix_.output);
    std::vector<std::int32_t> prompt;
    // Every fourth prompt begins with one of three others, as system prompts do.
    if (random(4) > 0)
      for (int i = 0, like = random(3), n = random(mix_.prompt); i < n; ++i)
        prompt.push_back(static_cast<std::int32_t>(random_bits(like, i) % kFakeVocabulary));
    for (int i = static_cast<int>(prompt.size()), n = 1 + random(mix_.prompt); i < n || prompt.empty(); ++i)
      prompt.push_back(random(kFakeVocabulary));
    r.prompt = std::move(prompt);
    if (random(5) == 0) r.stop_ids = {random(kFakeVocabulary)};
    if (random(5) == 0) r.sampling.min_tokens = random(r.max_tokens);
    if (random(6) == 0) r.sampling.prompt_logprobs = 0;
    if (random(2) == 0) r.sampling.prompt_logprobs_from = 1 + random(static_cast<int>(r.prompt.size()));
    if (random(6) == 0)  // comes back after a restart
      for (int n = random(r.max_tokens); n > 0; --n) r.output.push_back(expected(r));
    return r;
  }

  static std::vector<std::int32_t> text_of(const Request& r) {
    std::vector<std::int32_t> text = r.prompt.tokens();
    text.insert(text.end(), r.output.begin(), r.output.end());
    return text;
  }

  std::int32_t next(std::span<const std::int32_t> text, std::uint64_t kv) const {
    const auto period = static_cast<std::size_t>(mix_.period);
    return period > 0 && text.size() > period && kv % 16 > 0 ? text[text.size() - period] : fake_next(kv);
  }

  std::int32_t expected(const Request& r) const {
    const std::vector<std::int32_t> text = text_of(r);
    return next(text, fake_kv_of(text));
  }

  void change_requests() {
    if (step_ < mix_.arrive_steps && random(mix_.arrive_every) == 0) {
      const Request r = random_request();
      for (int n = random(3) == 0 ? 1 + random(4) : 1; n > 0; --n) {
        Request& same = (alive_[++last_id_] = {r, 0, step_}).request;
        same.id = last_id_;
        scheduler_.add(same);
      }
    }
    if (random(20) == 0) abort_one();
  }

  bool abort_one() {
    if (last_id_ == 0) return false;
    const std::int64_t gone = 1 + random(static_cast<int>(last_id_));
    scheduler_.abort(gone);
    scheduler_.check();
    return alive_.erase(gone) > 0;
  }

  // Begins a step of one lane, and ends that of the next one, which has been under way while others began.
  void run_step() {
    const SchedulerLimits& limits = mix_.limits;
    const int lane = step_ % limits.lanes;
    const auto [b, rows, ids] = scheduler_.next(lane);
    scheduler_.check();
    ASSERT_TRUE(limits.lanes > 1 || b.empty() == alive_.empty());
    most_under_way_ = std::max(most_under_way_, static_cast<int>(std::ranges::count_if(
                                                    under_way_, [](const auto& tokens) { return !tokens.empty(); })));
    ASSERT_LE(b.num_tokens(), limits.max_tokens);
    ASSERT_LE(b.num_sequences(), limits.max_sequences);
    ASSERT_LE(b.num_sampled(), limits.max_sampled > 0 ? limits.max_sampled : limits.max_sequences);
    ASSERT_NO_THROW(decode(encode(b), 1, kFakeVocabulary, limits.lanes * limits.kv_blocks, limits.owners));
    const std::vector<std::uint64_t> kv = model_.run(b);
    std::vector<SampledToken>& tokens = under_way_[lane];
    ASSERT_EQ(static_cast<int>(rows.size()), b.num_sampled());
    for (std::size_t i = 0; i < rows.size(); ++i) ASSERT_NO_FATAL_FAILURE(tokens.push_back(choose(rows[i], kv[i])));
    if (random(20) == 0 && abort_one()) ++aborted_in_flight_;
    const int ends = (lane + 1) % limits.lanes;
    if (step_ + 1 < limits.lanes) return;  // it has not begun
    const std::vector<TokenEvent> events = scheduler_.commit(std::exchange(under_way_[ends], {}), ends);
    scheduler_.check();
    for (const TokenEvent& event : events) ASSERT_NO_FATAL_FAILURE(take(event));
  }

  // The row must stand for all tokens of its request up to its position, and for what is guessed of the rest.
  SampledToken choose(const SampledRow& row, std::uint64_t kv) {
    const Request* request = row.request;
    const Alive& alive = alive_.at(request->id);
    EXPECT_EQ(request->output, alive.request.output);
    EXPECT_EQ(kv, fake_kv_of(row.text)) << "request " << request->id;
    const std::vector<std::int32_t> text = text_of(alive.request);
    const std::size_t known = std::min(text.size(), row.text.size());
    EXPECT_TRUE(std::equal(text.begin(), text.begin() + known, row.text.begin())) << "request " << request->id;
    const LogprobEntry entry{static_cast<float>(row.position()), {}};
    if (row.of_prompt()) return {request->prompt[row.position() + 1], entry};
    EXPECT_GE(row.text.size(), text.size());
    EXPECT_LE(row.text.size(), text.size() + mix_.limits.max_draft);
    return {next(row.text, kv), entry};
  }

  void take(const TokenEvent& event) {
    Alive& alive = alive_.at(event.id);
    Request& r = alive.request;
    ASSERT_EQ(event.token, expected(r));
    const bool collects = r.sampling.prompt_logprobs >= 0 && r.output.empty();
    const auto from = static_cast<std::size_t>(r.sampling.prompt_logprobs_from);
    ASSERT_EQ(event.prompt.size(), collects ? r.prompt.size() - from : 0);
    for (std::size_t i = 0; i < event.prompt.size(); ++i) ASSERT_EQ(event.prompt[i].logprob, from - 1 + i);
    ASSERT_EQ(event.logprobs->logprob, r.prompt.size() + r.output.size() - 1);
    const bool stops = std::count(r.stop_ids.begin(), r.stop_ids.end(), event.token) > 0 &&
                       static_cast<int>(r.output.size()) >= r.sampling.min_tokens;
    r.output.push_back(event.token);
    const bool full = static_cast<int>(r.output.size()) == r.max_tokens;
    ASSERT_EQ(event.finish.has_value(), stops || full);
    if (!event.finish) return;
    ASSERT_EQ(event.finish, stops ? FinishReason::kStop : FinishReason::kLength);
    alive_.erase(event.id);
  }

  const Mix mix_;
  Scheduler scheduler_;
  FakeModel model_;
  std::map<std::int64_t, Alive> alive_;
  std::uint64_t draw_ = 0;
  std::int64_t last_id_ = 0;
  std::vector<std::vector<SampledToken>> under_way_;  // by lane: the tokens with which its step will end
  int step_ = 0, aborted_in_flight_ = 0, most_under_way_ = 0;
};

TEST(Workload, EveryRequestGetsItsTokens) {
  SchedulerStats all;
  int cut_short = 0;
  for (const int owners : {1, 2, 3})
    for (const int priorities : {1, 5})
      for (std::uint64_t seed = 0; seed < 12; ++seed) {
        SCOPED_TRACE(testing::Message() << owners << " owners, " << priorities << " priorities, seed " << seed);
        Mix mix{.seed = seed, .priorities = priorities};
        mix.limits = {.kv_blocks = seed % 3 == 0 ? 8 : 24,  // one request needs up to seven
                      .max_tokens = seed % 4 == 0 ? 5 : 20,
                      .max_sequences = seed % 2 == 0 ? 6 : 16,
                      .max_sampled = seed % 5 == 0 ? 3 : 0,
                      .max_positions = 200,
                      .owners = owners,
                      .prefix_caching = seed % 6 != 5,
                      .aging_steps = 16};
        Workload workload(mix);
        ASSERT_NO_FATAL_FAILURE(workload.run());
        all.preemptions += workload.stats().preemptions;
        all.prefix_hits += workload.stats().prefix_hits;
        cut_short += workload.cut_short();
      }
  EXPECT_GT(all.preemptions, 300);
  EXPECT_GT(all.prefix_hits, 10000);
  EXPECT_GT(cut_short, 50);
}

// With steps of several lanes under way at once, too: requests come, go and are preempted while others' steps run.
TEST(Workload, EveryRequestGetsItsTokensInLanes) {
  SchedulerStats all;
  for (const int lanes : {2, 3})
    for (const int owners : {1, 2})
      for (std::uint64_t seed = 0; seed < 12; ++seed) {
        SCOPED_TRACE(testing::Message() << lanes << " lanes, " << owners << " owners, seed " << seed);
        Mix mix{.seed = seed, .arrive_every = 2, .priorities = seed % 2 == 0 ? 1 : 5};
        mix.limits = {.kv_blocks = seed % 3 == 0 ? 8 : 24,
                      .max_tokens = seed % 4 == 0 ? 5 : 20,
                      .max_sequences = seed % 2 == 0 ? 6 : 16,
                      .max_sampled = seed % 5 == 0 ? 3 : 0,
                      .max_positions = 200,
                      .max_draft = seed % 3 == 1 ? 4 : 0,
                      .owners = owners,
                      .lanes = lanes,
                      .aging_steps = 16};
        Workload workload(mix);
        ASSERT_NO_FATAL_FAILURE(workload.run());
        EXPECT_EQ(workload.most_under_way(), lanes - 1);
        all.preemptions += workload.stats().preemptions;
        all.prefix_hits += workload.stats().prefix_hits;
      }
  EXPECT_GT(all.preemptions, 20);
  EXPECT_GT(all.prefix_hits, 1000);
}

// What is guessed changes no token, whatever becomes of it.
TEST(Workload, GuessesChangeNoToken) {
  SchedulerStats all;
  for (const int owners : {1, 2})
    for (std::uint64_t seed = 0; seed < 16; ++seed) {
      SCOPED_TRACE(testing::Message() << owners << " owners, seed " << seed);
      Mix mix{.seed = seed,
              .arrive_every = seed % 2 == 0 ? 3 : 30,
              .output = 60,
              .priorities = 3,
              .period = seed % 4 == 3 ? 0 : 5 + 6 * static_cast<int>(seed % 3)};
      mix.limits = {.kv_blocks = seed % 3 == 0 ? 9 : 24,
                    .max_tokens = seed % 5 == 0 ? 7 : 24,
                    .max_sequences = seed % 2 == 0 ? 6 : 16,
                    .max_sampled = seed % 6 == 0 ? 7 : 20,
                    .max_positions = 200,
                    .max_draft = seed % 5 == 1 ? 1 : 9,
                    .owners = owners,
                    .prefix_caching = seed % 6 != 5,
                    .aging_steps = 16};
      Workload workload(mix);
      ASSERT_NO_FATAL_FAILURE(workload.run());
      all.preemptions += workload.stats().preemptions;
      all.drafted_tokens += workload.stats().drafted_tokens;
      all.accepted_tokens += workload.stats().accepted_tokens;
    }
  EXPECT_GT(all.preemptions, 100);
  EXPECT_GT(all.accepted_tokens, 5000);
  EXPECT_GT(all.drafted_tokens, all.accepted_tokens + 1000);
}

// The budget of one token, one sequence, one row, one request's blocks: slow, but nothing is stuck.
TEST(Workload, TheSmallestLimitsAreEnough) {
  for (const auto& [tokens, sequences, rows] : {std::tuple{1, 1, 1}, {1, 4, 1}, {4, 4, 1}, {2, 3, 2}})
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      Mix mix{.seed = seed, .arrive_every = 10, .priorities = 3};
      mix.limits = {.kv_blocks = 6,
                    .max_tokens = tokens,
                    .max_sequences = sequences,
                    .max_sampled = rows,
                    .max_positions = 200,
                    .aging_steps = 8};
      Workload workload(mix);
      ASSERT_NO_FATAL_FAILURE(workload.run());
    }
}

}  // namespace
}  // namespace foe
