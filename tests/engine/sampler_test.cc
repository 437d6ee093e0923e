#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "core/batch.h"

namespace foe {
namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
const std::vector<float> kLogits{0.0f, 2.0f, 1.0f, 2.0f, -1.0f};

Request request(const SamplingParams& params, int output_position = 0) {
  Request r;
  r.prompt = {0};
  r.output.assign(output_position, 0);
  r.max_tokens = 1 << 20;
  r.sampling = params;
  return r;
}

std::vector<std::int32_t> text_of(const Request& r) {
  std::vector<std::int32_t> text = r.prompt.tokens();
  text.insert(text.end(), r.output.begin(), r.output.end());
  return text;
}

std::int32_t choose(const std::vector<float>& logits, const Request& r, std::span<const std::uint64_t> allowed = {}) {
  Sampler sampler(static_cast<int>(logits.size()));
  TokenCounts counts;
  if (has_penalties(r.sampling)) counts.update(text_of(r), r.prompt.size());
  return sampler.choose(logits, r, text_of(r), &counts, allowed);
}

int wanted_of(const Request& r) {
  return candidates_wanted(r, text_of(r));
}

std::map<std::int32_t, int> draw(const std::vector<float>& logits, const SamplingParams& params, int count,
                                 std::span<const std::uint64_t> allowed = {}) {
  std::map<std::int32_t, int> seen;
  for (int i = 0; i < count; ++i) ++seen[choose(logits, request(params, i), allowed)];
  return seen;
}

std::vector<float> random_logits(int n, std::uint64_t seed, double deviation) {
  std::vector<float> logits(n);
  for (int i = 0; i < n; ++i) logits[i] = static_cast<float>(deviation * random_normal(seed, i));
  return logits;
}

TEST(Sampler, GreedyTakesTheLowestOfTheLargest) {
  EXPECT_EQ(choose(kLogits, request({})), 1);
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  const int n = 20000;
  const auto seen = draw(kLogits, {.temperature = 1.5f, .seed = 3}, n);
  double total = 0;
  for (const float x : kLogits) total += std::exp(x / 1.5);
  for (std::size_t i = 0; i < kLogits.size(); ++i) {
    const double p = std::exp(kLogits[i] / 1.5) / total;
    EXPECT_NEAR(seen.at(static_cast<int>(i)) / static_cast<double>(n), p, 5 * std::sqrt(p * (1 - p) / n)) << i;
  }
}

TEST(Sampler, FiltersKeepTheMostLikely) {
  const auto tokens = [](SamplingParams p) {
    std::vector<std::int32_t> ids;
    for (const auto& [id, count] : draw(kLogits, p, 3000)) ids.push_back(id);
    return ids;
  };
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 1}), Ids{1});
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 2}), (Ids{1, 3}));
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 3}), (Ids{1, 2, 3}));
  EXPECT_EQ(tokens({.temperature = 1, .top_k = 100}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(tokens({.temperature = 1, .top_p = 0.01f}), Ids{1});
  EXPECT_EQ(tokens({.temperature = 1, .top_p = 0.6f}), (Ids{1, 3}));  // 0.397 each, then 0.146
  EXPECT_EQ(tokens({.temperature = 1, .top_p = 0.6f, .top_k = 1}), Ids{1});
  EXPECT_EQ(tokens({.temperature = 1, .min_p = 0.5f}), (Ids{1, 3}));
  EXPECT_EQ(tokens({.temperature = 1, .min_p = 0.3f}), (Ids{1, 2, 3}));
  EXPECT_EQ(tokens({.temperature = 1, .min_p = 1.0f}), (Ids{1, 3}));
  EXPECT_EQ(tokens({.temperature = 1e-30f}), (Ids{1, 3}));
}

// Against the definition, with all weights sorted: which tokens may come, and that each comes as often as it should.
TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  for (const double deviation : {0.01, 1.0, 4.0}) {
    const std::vector<float> logits = random_logits(300, 7, deviation);
    std::vector<std::pair<double, int>> sorted;
    double total = 0, kept = 0;
    for (int i = 0; i < 300; ++i) total += sorted.emplace_back(std::exp(logits[i]), -i).first;
    std::sort(sorted.rbegin(), sorted.rend());
    std::map<std::int32_t, double> expected;
    for (std::size_t i = 0; kept < 0.8 * total; ++i)
      kept += expected.emplace(-sorted[i].second, sorted[i].first).first->second;
    const int n = 10000;
    const auto seen = draw(logits, {.temperature = 1, .top_p = 0.8f, .seed = 5}, n);
    for (const auto& [token, count] : seen) ASSERT_TRUE(expected.contains(token)) << token;
    for (const auto& [token, weight] : expected) {
      const double p = weight / kept;
      const auto found = seen.find(token);
      EXPECT_NEAR((found == seen.end() ? 0 : found->second) / double{n}, p, 6 * std::sqrt(p / n)) << token;
    }
  }
}

TEST(Sampler, IsAFunctionOfSeedAndPosition) {
  const SamplingParams p{.temperature = 2, .seed = 11};
  std::vector<std::int32_t> first, second, other;
  for (int i = 0; i < 200; ++i) {
    first.push_back(choose(kLogits, request(p, i)));
    second.push_back(choose(kLogits, request(p, i)));
    other.push_back(choose(kLogits, request({.temperature = 2, .seed = 12}, i)));
  }
  EXPECT_EQ(first, second);
  EXPECT_NE(first, other);
}

// Ranks that send their most likely tokens, in any order and more than are needed, change nothing.
TEST(Sampler, CandidatesGiveWhatAllLogitsGive) {
  const SamplingParams cases[] = {{},
                                  {.temperature = 1, .top_k = 1},
                                  {.temperature = 1.5f, .top_k = 40},
                                  {.temperature = 0.7f, .top_p = 0.5f, .top_k = kMaxCandidates},
                                  {.temperature = 1, .top_k = 20, .min_p = 0.2f}};
  Sampler sampler(1000);
  for (const SamplingParams& params : cases)
    for (int i = 0; i < 200; ++i) {
      std::vector<float> logits = random_logits(1000, i, 1.0 + i % 3);
      if (i % 4 == 0)
        for (float& x : logits) x = std::round(x);  // ties
      if (i == 199) logits.assign(1000, kNan);
      const Request r = request(params, i);
      const int wanted = wanted_of(r);
      ASSERT_GT(wanted, 0);
      std::vector<Candidate> candidates;
      for (const auto& [begin, end] : {std::pair{700, 1000}, {0, 30}, {30, 700}})
        append_most_likely(std::span(logits).subspan(begin, end - begin), wanted, begin, candidates);
      EXPECT_EQ(sampler.choose(candidates, r, text_of(r)), sampler.choose(logits, r, text_of(r))) << i;
      Request reported = r;
      reported.sampling.logprobs = 2;  // whole rows are needed, the text is the same
      EXPECT_EQ(wanted_of(reported), 0);
      EXPECT_EQ(sampler.choose(logits, reported, text_of(reported)), sampler.choose(candidates, r, text_of(r)));
    }
}

TEST(Sampler, WantsWholeRowsForWhatLooksAtAllLogits) {
  EXPECT_EQ(wanted_of(request({})), 1);
  EXPECT_EQ(wanted_of(request({.temperature = 1, .top_k = 64})), 64);
  EXPECT_EQ(wanted_of(request({.temperature = 1, .top_k = 65})), 0);
  const SamplingParams whole[] = {
      {.temperature = 1},           {.presence_penalty = 0.1f},        {.frequency_penalty = -1},
      {.repetition_penalty = 1.1f}, {.logit_bias = {{1, 1}}},          {.allowed_tokens = {1}},
      {.bad_words = {{1}}},         {.temperature = 1, .top_p = 0.9f}, {.logprobs = 0}};
  for (const SamplingParams& params : whole) EXPECT_EQ(wanted_of(request(params)), 0);
  Request r = request({.min_tokens = 3}, 2);
  EXPECT_EQ(wanted_of(r), 1);  // no stop ids
  r.stop_ids = {1};
  EXPECT_EQ(wanted_of(r), 0);
  r.output.push_back(0);
  EXPECT_EQ(wanted_of(r), 1);
  r.constraint.kind = Constraint::Kind::kJsonObject;
  EXPECT_EQ(wanted_of(r), 0);
}

TEST(Sampler, PenaltiesAndBiasChangeLogits) {
  const auto greedy = [](SamplingParams params, std::vector<std::int32_t> prompt, std::vector<std::int32_t> output) {
    Request r = request(params);
    r.prompt = std::move(prompt);
    r.output = std::move(output);
    return choose(kLogits, r);
  };
  // Presence counts once, for tokens of the output only.
  EXPECT_EQ(greedy({.presence_penalty = 0.5f}, {1}, {3, 3, 3}), 1);
  EXPECT_EQ(greedy({.presence_penalty = 0.5f}, {0}, {1, 1, 1}), 3);
  EXPECT_EQ(greedy({.presence_penalty = 0.9f}, {0}, {1, 3, 3}), 1);
  EXPECT_EQ(greedy({.presence_penalty = 1.1f}, {0}, {1, 3, 3}), 2);
  EXPECT_EQ(greedy({.presence_penalty = -2}, {0}, {2}), 2);
  // Frequency counts how often.
  EXPECT_EQ(greedy({.frequency_penalty = 0.4f}, {1, 1, 1, 1}, {1, 3, 3}), 1);
  EXPECT_EQ(greedy({.frequency_penalty = 0.4f}, {0}, {1, 1, 3}), 3);
  EXPECT_EQ(greedy({.frequency_penalty = 0.4f}, {0}, {1, 1, 1, 3, 3, 3}), 2);
  // Repetition looks at the prompt too; negative logits become more negative.
  EXPECT_EQ(greedy({.repetition_penalty = 1.9f}, {1}, {}), 3);
  EXPECT_EQ(greedy({.repetition_penalty = 1.9f}, {1, 3, 3}, {}), 1);
  EXPECT_EQ(greedy({.repetition_penalty = 2}, {1}, {3, 2}), 1);
  EXPECT_EQ(greedy({.repetition_penalty = 2, .logit_bias = {{0, -9}, {1, -9}, {2, -9}, {3, -9}}}, {4, 0}, {}), 4);
  EXPECT_EQ(
      greedy({.repetition_penalty = 2, .logit_bias = {{0, -0.5f}, {1, -9}, {2, -9}, {3, -9}, {4, 0.4f}}}, {0}, {4}),
      0);  // -0.5 and -0.6, doubled
  // Bias comes before penalties: 2 + 4, halved, is less than 1 + 3.
  EXPECT_EQ(greedy({.repetition_penalty = 2, .logit_bias = {{2, 3}, {1, 4}}}, {1}, {}), 2);
  EXPECT_EQ(greedy({.logit_bias = {{4, 100}}}, {0}, {}), 4);
  EXPECT_EQ(greedy({.logit_bias = {{1, -100}, {3, -1}}}, {0}, {}), 2);
}

TEST(Sampler, CountsTokensAsTheyCome) {
  Request r = request({});
  r.prompt = {5, 6, 5};
  TokenCounts grown, at_once;
  for (const std::int32_t token : {7, 5, 7}) {
    grown.update(text_of(r), r.prompt.size());
    r.output.push_back(token);
  }
  grown.update(text_of(r), r.prompt.size());
  grown.update(text_of(r), r.prompt.size());
  at_once.update(text_of(r), r.prompt.size());
  EXPECT_EQ(grown.output(), at_once.output());
  EXPECT_EQ(grown.output(), (std::unordered_map<std::int32_t, int>{{5, 1}, {6, 0}, {7, 2}}));
}

TEST(Sampler, ChoosesAmongAllowedTokensAndNoBadWords) {
  for (const float temperature : {0.0f, 1.0f})
    for (int i = 0; i < 40; ++i) {
      EXPECT_THAT(choose(kLogits, request({.temperature = temperature, .allowed_tokens = {0, 4}}, i)),
                  testing::AnyOf(0, 4));
      Request r = request({.temperature = temperature, .bad_words = {{1}, {0, 3}, {7, 2}}}, i);
      const std::int32_t token = choose(kLogits, r);
      EXPECT_NE(token, 1);
      EXPECT_TRUE(i == 0 || token != 3) << "3 after 0";  // the output is 0, 0, ...
      EXPECT_TRUE(temperature > 0 || token == (i == 0 ? 3 : 2)) << i;
    }
  EXPECT_EQ(choose(kLogits, request({.allowed_tokens = {2}, .bad_words = {{2}}})), 2);  // nothing is left
  const std::vector<std::uint64_t> mask{0b11000};
  EXPECT_EQ(choose(kLogits, request({.allowed_tokens = {2, 4}}), mask), 4);
  EXPECT_EQ(choose(kLogits, request({.allowed_tokens = {2}}), mask), 3);  // the constraint holds in any case
}

TEST(Sampler, StopIdsComeAfterMinTokens) {
  for (const float temperature : {0.0f, 1.0f})
    for (int position = 0; position < 40; ++position) {
      Request r = request({.temperature = temperature, .min_tokens = 20}, position);
      r.stop_ids = {1, 3, -7, 1 << 30};  // the last two never come
      const std::int32_t token = choose(kLogits, r);
      EXPECT_TRUE(position >= 20 || (token != 1 && token != 3)) << position;
      EXPECT_TRUE(temperature > 0 || token == (position < 20 ? 2 : 1)) << position;
    }
}

TEST(Sampler, ChoosesAllowedTokensOnly) {
  const std::vector<float> logits = random_logits(200, 3, 1.0);
  std::vector<std::uint64_t> allowed(4);
  const std::set<std::int32_t> ids{5, 63, 64, 130, 199};
  for (const std::int32_t id : ids) allowed[id / 64] |= std::uint64_t{1} << id % 64;
  std::int32_t best = 5;
  for (const std::int32_t id : ids)
    if (logits[id] > logits[best]) best = id;
  EXPECT_EQ(choose(logits, request({}), allowed), best);
  std::set<std::int32_t> seen;
  for (const auto& [token, count] : draw(logits, {.temperature = 3}, 2000, allowed)) seen.insert(token);
  EXPECT_EQ(seen, ids);
  seen.clear();
  for (const auto& [token, count] : draw(logits, {.temperature = 3, .top_k = 100}, 2000, allowed)) seen.insert(token);
  EXPECT_EQ(seen, ids);
  const std::vector<std::uint64_t> all(4, ~std::uint64_t{0});
  for (int i = 0; i < 100; ++i)
    EXPECT_EQ(choose(logits, request({.temperature = 1}, i), all), choose(logits, request({.temperature = 1}, i)));

  // Nothing is left, or no logit is a number: the first of the allowed ones.
  EXPECT_EQ(choose(std::vector<float>(200, kNan), request({.temperature = 1}), allowed), 5);
  Request r = request({.min_tokens = 9});
  r.stop_ids = {64};
  EXPECT_EQ(choose(logits, r, std::vector<std::uint64_t>{0, 1, 0, 0}), 64);
}

TEST(Sampler, SurvivesLogitsThatAreNotFinite) {
  for (const std::vector<float>& logits :
       {std::vector<float>{kNan, kNan}, {kInf, kInf}, {-kInf, -kInf}, {-kInf, 1.0f}, {kNan, kInf}})
    for (const SamplingParams& params : {SamplingParams{.temperature = 1}, {.temperature = 1, .top_k = 1}, {}}) {
      const std::int32_t token = choose(logits, request(params));
      EXPECT_EQ(token, logits[1] > -kInf && !(logits[0] == kInf) ? 1 : 0);
      const LogprobEntry entry = Sampler(2).logprobs(logits, token, 2);
      EXPECT_LE(entry.logprob, 0.0f);
      for (const TokenLogprob& top : entry.top) EXPECT_LE(top.logprob, 0.0f);
    }
}

TEST(Sampler, ReportsTheModelsProbabilities) {
  Sampler sampler(5);
  double total = 0;
  for (const float x : kLogits) total += std::exp(double{x});
  const LogprobEntry entry = sampler.logprobs(kLogits, 4, 3);
  // Both are a double rounded once, and doubles that differ by less than 1e-14.
  EXPECT_FLOAT_EQ(entry.logprob, static_cast<float>(-1 - std::log(total)));
  EXPECT_EQ(entry.rank, std::ranges::count_if(kLogits, [](float x) { return x > kLogits[4]; }) + 1);
  ASSERT_EQ(entry.top.size(), 3u);
  const std::int32_t tokens[] = {1, 3, 2};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(entry.top[i].token, tokens[i]);
    EXPECT_FLOAT_EQ(entry.top[i].logprob, static_cast<float>(kLogits[tokens[i]] - std::log(total)));
  }
  EXPECT_TRUE(sampler.logprobs(kLogits, 0, 0).top.empty());
  EXPECT_EQ(sampler.logprobs(kLogits, 0, 20).top.size(), 5u);
}

TEST(Sampler, ReportsTokensThatAreAskedFor) {
  Sampler sampler(5);
  const LogprobEntry all = sampler.logprobs(kLogits, 1, 5);
  const auto expect = [&](std::int32_t chosen, std::vector<std::int32_t> asked, std::vector<std::int32_t> reported) {
    const LogprobEntry entry = sampler.logprobs(kLogits, chosen, 2, asked);
    ASSERT_EQ(entry.top.size(), reported.size());
    for (std::size_t i = 0; i < reported.size(); ++i) {
      EXPECT_EQ(entry.top[i].token, reported[i]);
      const auto same = std::ranges::find(all.top, reported[i], &TokenLogprob::token);
      EXPECT_EQ(entry.top[i].logprob, same->logprob);
    }
  };
  expect(1, {0, 4}, {0, 4, 1});
  expect(4, {0, 4}, {0, 4});
}

std::string message(const Request& r) {
  try {
    validate(r, 70);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Sampler, ValidationNamesTheFieldAndItsRange) {
  const auto refusal = [](SamplingParams p) { return message(request(p)); };
  EXPECT_EQ(refusal({}), "accepted");
  for (const float t : {-0.1f, 101.0f, kNan})
    EXPECT_THAT(refusal({.temperature = t}), testing::StartsWith("temperature: expected 0 to 100, got"));
  for (const float p : {0.0f, 1.1f, kNan})
    EXPECT_THAT(refusal({.top_p = p}), testing::StartsWith("top_p: expected more than 0 and at most 1, got"));
  EXPECT_EQ(refusal({.top_k = -1}), "top_k: expected 0 (all) or more, got -1");
  for (const float p : {-0.1f, 1.1f, kNan})
    EXPECT_THAT(refusal({.min_p = p}), testing::StartsWith("min_p: expected 0 to 1, got"));
  for (const float p : {-2.1f, 2.1f, kNan, kInf}) {
    EXPECT_THAT(refusal({.presence_penalty = p}), testing::StartsWith("presence_penalty: expected -2 to 2, got"));
    EXPECT_THAT(refusal({.frequency_penalty = p}), testing::StartsWith("frequency_penalty: expected -2 to 2, got"));
  }
  for (const float p : {0.0f, -1.0f, 2.1f, kNan})
    EXPECT_THAT(refusal({.repetition_penalty = p}),
                testing::StartsWith("repetition_penalty: expected more than 0 and at most 2, got"));
  for (const float bias : {-100.5f, 101.0f, kNan})
    EXPECT_THAT(refusal({.logit_bias = {{1, bias}}}), testing::StartsWith("logit_bias: expected -100 to 100, got"));
  for (const int token : {-1, 70})
    EXPECT_THAT(refusal({.logit_bias = {{token, 0}}}),
                testing::StartsWith("logit_bias: expected an id in [0, 70), got"));
  EXPECT_EQ(refusal({.logit_bias = std::vector<LogitBias>(kMaxLogitBias)}), "accepted");
  EXPECT_EQ(refusal({.logit_bias = std::vector<LogitBias>(kMaxLogitBias + 1)}),
            "logit_bias: expected at most 1024 tokens, got 1025");
  EXPECT_EQ(refusal({.min_tokens = -1}), "min_tokens: expected 0 or more, got -1");
  EXPECT_EQ(refusal({.logprobs = 20, .prompt_logprobs = 20}), "accepted");
  EXPECT_EQ(refusal({.logprob_tokens = std::vector<std::int32_t>(129)}),
            "logprob_token_ids: expected at most 128 tokens, got 129");
  for (const int n : {-2, 21}) {
    EXPECT_THAT(refusal({.logprobs = n}), testing::StartsWith("logprobs: expected -1 (none) to 20, got"));
  }
  EXPECT_EQ(refusal({.prompt_logprobs = -2}), "prompt_logprobs: expected -1 (none) or more, got -2");
  EXPECT_EQ(refusal({.prompt_logprobs = 70}), "accepted");
  EXPECT_EQ(refusal({.prompt_logprobs = 71}), "prompt_logprobs: expected at most 70, got 71");

  Request r = request({.min_tokens = 5});
  r.max_tokens = 4;
  EXPECT_EQ(message(r), "min_tokens: expected at most max_tokens = 4, got 5");
  for (const int from : {0, 2}) {
    r = request({.prompt_logprobs_from = from});
    r.prompt = {1};
    EXPECT_THAT(message(r), testing::StartsWith("prompt_logprobs_from: expected 1 to the prompt's 1 tokens, got"));
  }
  r = request({.prompt_logprobs = 20});
  r.prompt = std::vector<std::int32_t>(kMaxPromptLogprobs / 21, 0);
  EXPECT_EQ(message(r), "accepted");
  r.prompt = std::vector<std::int32_t>(r.prompt.size() + 1, 0);
  EXPECT_THAT(message(r),
              testing::StartsWith("prompt_logprobs: expected at most 6291456 tokens to report, got 21 for "));
}

}  // namespace
}  // namespace foe
