#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"
#include "core/batch.h"

namespace foe {
namespace {

// The condition is written so that NaN fails.
void check_range(const char* field, float value, float least, float most) {
  if (!(value >= least && value <= most)) fail("{}: expected {} to {}, got {}", field, least, most, value);
}

// For a range that does not include 0.
void check_above_0(const char* field, float value, float most) {
  if (!(value > 0.0f && value <= most)) fail("{}: expected more than 0 and at most {}, got {}", field, most, value);
}

void check_logprobs(const char* field, int value) {
  if (value < -1 || value > kMaxLogprobs) fail("{}: expected -1 (none) to {}, got {}", field, kMaxLogprobs, value);
}

void check_token(const char* field, std::int32_t token, int vocab_size) {
  if (token < 0 || token >= vocab_size) fail("{}: expected an id in [0, {}), got {}", field, vocab_size, token);
}

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

// Weights in [0, 1] are put into buckets by their exponent and the highest five bits of their fraction. The first
// bucket has the zeros only, as other weights are at least e^-87.
constexpr int kBucketShift = 18;
constexpr std::uint32_t bucket_of(float weight) {
  return std::bit_cast<std::uint32_t>(weight) >> kBucketShift;
}
constexpr std::uint32_t kLastBucket = bucket_of(1.0f);

std::size_t outputs(const Request& request, Text text) {
  return text.size() - request.prompt.size();
}

bool stop_ids_forbidden(const Request& request, Text text) {
  return static_cast<int>(outputs(request, text)) < request.sampling.min_tokens && !request.stop_ids.empty();
}

void apply_penalties(const SamplingParams& params, const TokenCounts& counts, std::span<float> logits_V) {
  for (const auto& [token, count] : counts.output()) {
    float& logit = logits_V[token];
    logit = logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    logit -= params.frequency_penalty * static_cast<float>(count);
    if (count > 0) logit -= params.presence_penalty;
  }
}

void forbid_others(std::span<const std::uint64_t> allowed, std::span<float> logits_V) {
  for (std::size_t i = 0; i < logits_V.size(); i += 64) {
    const std::uint64_t word = allowed[i / 64];
    if (word == ~std::uint64_t{0}) continue;
    const std::size_t end = std::min(i + 64, logits_V.size());
    for (std::size_t j = i; j < end; ++j)
      if ((word >> (j - i) & 1) == 0) logits_V[j] = kForbidden;
  }
}

void keep_only(std::span<const std::int32_t> ascending, std::span<float> logits_V) {
  std::size_t next = 0;
  for (std::size_t i = 0; i < logits_V.size(); ++i)
    if (next < ascending.size() && static_cast<std::size_t>(ascending[next]) == i)
      ++next;
    else
      logits_V[i] = kForbidden;
}

// Forbids the last token of each run whose other tokens are the end of the output.
void forbid_bad_words(std::span<const std::vector<std::int32_t>> bad_words, Text output, std::span<float> logits_V) {
  for (const std::vector<std::int32_t>& word : bad_words) {
    const std::size_t before = word.size() - 1;
    if (before <= output.size() && std::equal(word.begin(), word.end() - 1, output.end() - before))
      logits_V[word.back()] = kForbidden;
  }
}

// What is chosen if nothing is left to choose from.
std::int32_t first_allowed(std::span<const std::uint64_t> allowed, std::span<const std::int32_t> allowed_tokens) {
  for (std::size_t i = 0; i < allowed.size(); ++i)
    if (allowed[i] != 0) return static_cast<std::int32_t>(64 * i + std::countr_zero(allowed[i]));
  return allowed_tokens.empty() ? 0 : allowed_tokens.front();
}

// Nothing but the prompt says what comes of a request with pooling.
void check_pooling(const Request& request) {
  if (request.max_tokens != 0 || !request.output.empty())
    fail("pooling: expected no output tokens, got {}, at most {}", request.output.size(), request.max_tokens);
  if (request.constraint.kind != Constraint::Kind::kNone) fail("pooling: expected no rule for the output, got one");
  if (request.sampling.prompt_logprobs >= 0) fail("pooling: expected no prompt_logprobs, got some");
}

}  // namespace

void validate(const SamplingParams& p) {
  check_range("temperature", p.temperature, 0.0f, 100.0f);
  check_above_0("top_p", p.top_p, 1.0f);
  if (p.top_k < 0) fail("top_k: expected 0 (all) or more, got {}", p.top_k);
  check_range("min_p", p.min_p, 0.0f, 1.0f);
  check_range("presence_penalty", p.presence_penalty, -2.0f, 2.0f);
  check_range("frequency_penalty", p.frequency_penalty, -2.0f, 2.0f);
  check_above_0("repetition_penalty", p.repetition_penalty, 2.0f);
  if (p.logit_bias.size() > kMaxLogitBias)
    fail("logit_bias: expected at most {} tokens, got {}", kMaxLogitBias, p.logit_bias.size());
  for (const LogitBias& bias : p.logit_bias) check_range("logit_bias", bias.bias, -100.0f, 100.0f);
  if (p.min_tokens < 0) fail("min_tokens: expected 0 or more, got {}", p.min_tokens);
  check_logprobs("logprobs", p.logprobs);
  if (p.logprob_tokens.size() > kMaxLogprobTokens)
    fail("logprob_token_ids: expected at most {} tokens, got {}", kMaxLogprobTokens, p.logprob_tokens.size());
  if (p.prompt_logprobs < -1) fail("prompt_logprobs: expected -1 (none) or more, got {}", p.prompt_logprobs);
}

void validate(const Request& request, int vocab_size) {
  const SamplingParams& p = request.sampling;
  validate(p);
  if (request.pools()) check_pooling(request);
  for (const auto* tokens : {&request.prompt.tokens(), &request.output})
    for (const std::int32_t token : *tokens) check_token("token", token, vocab_size);
  for (const LogitBias& bias : p.logit_bias) check_token("logit_bias", bias.token, vocab_size);
  for (const std::int32_t token : p.allowed_tokens) check_token("allowed_token_ids", token, vocab_size);
  for (const std::int32_t token : p.logprob_tokens) check_token("logprob_token_ids", token, vocab_size);
  if (!std::ranges::is_sorted(p.allowed_tokens, std::ranges::less_equal()))
    fail("allowed_token_ids: expected ids in ascending order, each once");
  for (const std::vector<std::int32_t>& word : p.bad_words) {
    if (word.empty()) fail("bad_words: expected words of at least one token, got an empty one");
    for (const std::int32_t token : word) check_token("bad_words", token, vocab_size);
  }
  if (request.reasoning.budget < -1)
    fail("reasoning: expected a budget of -1 (any) or more tokens, got {}", request.reasoning.budget);
  if (request.reasoning.budget >= 0) {
    if (!request.reasoning.begun) check_token("reasoning", request.reasoning.begin, vocab_size);
    check_token("reasoning", request.reasoning.end, vocab_size);
  }
  if (p.min_tokens > request.max_tokens)
    fail("min_tokens: expected at most max_tokens = {}, got {}", request.max_tokens, p.min_tokens);
  if (const int most = std::max(vocab_size, kMaxLogprobs); p.prompt_logprobs > most)
    fail("prompt_logprobs: expected at most {}, got {}", most, p.prompt_logprobs);
  if (p.prompt_logprobs_from < 1 ||
      static_cast<std::size_t>(p.prompt_logprobs_from) > std::max<std::size_t>(1, request.prompt.size()))
    fail("prompt_logprobs_from: expected 1 to the prompt's {} tokens, got {}", request.prompt.size(),
         p.prompt_logprobs_from);
  const std::size_t named = request.prompt.size() * static_cast<std::size_t>(p.prompt_logprobs + 1);
  if (named > kMaxPromptLogprobs)
    fail("prompt_logprobs: expected at most {} tokens to report, got {} for each of {} in the prompt",
         kMaxPromptLogprobs, p.prompt_logprobs + 1, request.prompt.size());
}

bool has_penalties(const SamplingParams& params) {
  return params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f || params.repetition_penalty != 1.0f;
}

void TokenCounts::update(std::span<const std::int32_t> text, std::size_t prompt) {
  for (; counted_ < text.size(); ++counted_)
    if (counted_ < prompt)
      output_.try_emplace(text[counted_], 0);
    else
      ++output_[text[counted_]];
}

bool must_end_reasoning(const Request& request, Text text) {
  constexpr std::size_t kBeforeMark = 4;
  const ReasoningMarks& marks = request.reasoning;
  if (marks.budget < 0) return false;
  Text reasoning = text.subspan(request.prompt.size());
  if (!marks.begun) {
    const Text first = reasoning.first(std::min(kBeforeMark, reasoning.size()));
    const auto begin = std::ranges::find(first, marks.begin);
    if (begin == first.end()) return false;
    reasoning = reasoning.subspan(begin - first.begin() + 1);
  }
  return reasoning.size() == static_cast<std::size_t>(marks.budget) &&
         std::ranges::find(reasoning, marks.end) == reasoning.end();
}

int candidates_wanted(const Request& request, Text text) {
  const SamplingParams& p = request.sampling;
  if (has_penalties(p) || !p.logit_bias.empty() || !p.allowed_tokens.empty() || !p.bad_words.empty() ||
      p.logprobs >= 0 || stop_ids_forbidden(request, text) || request.constraint.kind != Constraint::Kind::kNone)
    return 0;
  if (p.temperature == 0.0f) return 1;
  return p.top_k <= kMaxCandidates ? p.top_k : 0;
}

Sampler::Sampler(int vocab_size) : adjusted_V_(vocab_size), weights_V_(vocab_size) {}

std::span<const float> Sampler::adjust(std::span<const float> logits_V, const Request& request, Text text,
                                       const TokenCounts* counts, std::span<const std::uint64_t> allowed) {
  const SamplingParams& params = request.sampling;
  if (params.logit_bias.empty() && !has_penalties(params) && params.allowed_tokens.empty() &&
      params.bad_words.empty() && allowed.empty() && !stop_ids_forbidden(request, text))
    return logits_V;
  const std::span<float> adjusted_V(adjusted_V_.data(), logits_V.size());
  std::ranges::copy(logits_V, adjusted_V.begin());
  for (const LogitBias& bias : params.logit_bias) adjusted_V[bias.token] += bias.bias;
  if (has_penalties(params)) apply_penalties(params, *counts, adjusted_V);
  if (!params.allowed_tokens.empty()) keep_only(params.allowed_tokens, adjusted_V);
  forbid_bad_words(params.bad_words, text.subspan(request.prompt.size()), adjusted_V);
  if (!allowed.empty()) forbid_others(allowed, adjusted_V);
  if (stop_ids_forbidden(request, text))
    for (const std::int32_t id : request.stop_ids)
      if (id >= 0 && static_cast<std::size_t>(id) < adjusted_V.size()) adjusted_V[id] = kForbidden;
  return adjusted_V;
}

std::int32_t Sampler::choose(std::span<const float> logits_V, const Request& request, Text text,
                             const TokenCounts* counts, std::span<const std::uint64_t> allowed) {
  const SamplingParams& params = request.sampling;
  const std::span<const float> adjusted_V = adjust(logits_V, request, text, counts, allowed);
  const bool all = params.top_k == 0 || static_cast<std::size_t>(params.top_k) >= adjusted_V.size();
  std::optional<std::size_t> token;
  if (params.temperature > 0.0f && all) token = draw(adjusted_V, request, text);
  if (!token) {
    candidates_.clear();
    append_most_likely(adjusted_V, params.temperature > 0.0f && !all ? params.top_k : 1, 0, candidates_);
    token = choose_candidate(request, text);
  }
  return adjusted_V[*token] > kForbidden ? static_cast<std::int32_t>(*token)
                                         : first_allowed(allowed, params.allowed_tokens);
}

std::int32_t Sampler::choose(std::span<const Candidate> candidates, const Request& request, Text text) {
  const std::size_t wanted = std::min<std::size_t>(candidates_wanted(request, text), candidates.size());
  candidates_.assign(candidates.begin(), candidates.end());
  std::partial_sort(candidates_.begin(), candidates_.begin() + wanted, candidates_.end(), more_likely);
  candidates_.resize(wanted);
  const std::int32_t token = choose_candidate(request, text);
  return candidates_.front().logit > kForbidden ? token : 0;
}

// Chooses one of candidates_: the most likely one if none can be drawn.
std::int32_t Sampler::choose_candidate(const Request& request, Text text) {
  if (candidates_.size() == 1) return candidates_.front().token;
  candidate_logits_.clear();
  for (const Candidate& c : candidates_) candidate_logits_.push_back(c.logit);
  return candidates_[draw(candidate_logits_, request, text).value_or(0)].token;
}

// Draws the index of a logit, after temperature, min_p and top_p; returns nothing if no logit is finite. Weights are
// summed in buckets, in each in the order of their indices, and then the buckets from the most likely one down. So only
// the weights of one bucket have to be looked at one by one, or sorted.
std::optional<std::size_t> Sampler::draw(std::span<const float> logits, const Request& request, Text text) {
  const SamplingParams& params = request.sampling;
  const std::span<float> weights(weights_V_.data(), logits.size());
  softmax_weights(logits, largest_logit(logits), params.temperature, params.min_p, weights.data());
  bucket_sums_.assign(kLastBucket + 1, 0.0);
  for (const float w : weights) bucket_sums_[bucket_of(w)] += w;
  double total = 0.0;
  for (std::uint32_t b = kLastBucket; b > 0; --b) total += bucket_sums_[b];
  if (total == 0.0) return {};

  std::uint32_t lowest = 1;
  while (bucket_sums_[lowest] == 0.0) ++lowest;
  const bool cut = params.top_p < 1.0f;
  if (cut) total = cut_nucleus(weights, params.top_p, total, lowest);
  double left = random_unit(params.seed, outputs(request, text)) * total;
  std::uint32_t b = kLastBucket;
  while (b > lowest && left >= bucket_sums_[b]) left -= bucket_sums_[b--];
  if (!cut || b > lowest) find_bucket(weights, b);
  for (const std::uint32_t i : bucket_)
    if ((left -= weights[i]) < 0.0) return i;
  return bucket_.back();  // reached only if rounding left a rest
}

void Sampler::find_bucket(std::span<const float> weights, std::uint32_t bucket) {
  bucket_.clear();
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (bucket_of(weights[i]) == bucket) bucket_.push_back(static_cast<std::uint32_t>(i));
}

// Finds the fewest of the most likely weights whose sum reaches top_p of the total: all that are in buckets above
// `lowest`, and of bucket `lowest` those that are left in bucket_. Returns their sum.
double Sampler::cut_nucleus(std::span<const float> weights, double top_p, double total, std::uint32_t& lowest) {
  double sum = 0.0;
  std::uint32_t b = kLastBucket;
  while (b > lowest && sum + bucket_sums_[b] < top_p * total) sum += bucket_sums_[b--];
  lowest = b;
  find_bucket(weights, b);
  std::sort(bucket_.begin(), bucket_.end(), [&](std::uint32_t i, std::uint32_t j) {
    return weights[i] != weights[j] ? weights[i] > weights[j] : i < j;
  });
  std::size_t kept = 0;
  do sum += weights[bucket_[kept++]];
  while (kept < bucket_.size() && sum < top_p * total);
  bucket_.resize(kept);
  return sum;
}

LogprobEntry Sampler::logprobs(std::span<const float> logits_V, std::int32_t token, int top,
                               std::span<const std::int32_t> others) {
  const double largest = largest_logit(logits_V);
  double sum = 0.0;
  for (const float x : logits_V)
    if (!std::isnan(x)) sum += std::exp(x - largest);
  const double log_total = largest + std::log(sum);
  const auto logprob = [&](float logit) {
    const double value = logit - log_total;
    return value <= 0.0 ? static_cast<float>(value) : kForbidden;
  };
  candidates_.clear();
  if (top > 0 && others.empty()) append_most_likely(logits_V, top, 0, candidates_);
  LogprobEntry entry{logprob(logits_V[token]), {}, 1};
  for (const float x : logits_V) entry.rank += x > logits_V[token];
  for (const Candidate& c : candidates_) entry.top.push_back({c.token, logprob(c.logit)});
  for (const std::int32_t other : others) entry.top.push_back({other, logprob(logits_V[other])});
  if (!others.empty() && std::ranges::find(others, token) == others.end()) entry.top.push_back({token, entry.logprob});
  return entry;
}

}  // namespace foe
