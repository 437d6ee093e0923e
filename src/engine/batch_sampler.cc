#include "engine/batch_sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace foe {
namespace {

struct Row {
  SampledRow at;
  std::span<const float> logits_V;  // all logits; empty if the row has
  std::span<const Candidate> candidates;
  const TokenCounts* counts = nullptr;       // of a request with penalties
  std::span<const std::uint64_t> allowed{};  // for a request with a constraint
};

// Whether the logits that the row's token was chosen from are finite. Logits that are NaN count as -inf, so they are
// among the largest only if all are.
bool finite(const Row& row, std::int32_t token) {
  if (row.candidates.empty()) return std::isfinite(row.logits_V[token]);
  return std::ranges::all_of(row.candidates, [](const Candidate& c) { return std::isfinite(c.logit); });
}

SampledToken sample_row(Sampler& sampler, const Row& row) {
  const Request& request = *row.at.request;
  const SamplingParams& params = request.sampling;
  if (row.at.of_prompt()) {
    const std::int32_t token = request.prompt[row.at.position + 1];
    return {token, sampler.logprobs(row.logits_V, token, params.prompt_logprobs)};
  }
  if (!row.candidates.empty()) return {sampler.choose(row.candidates, request)};
  const std::int32_t token = sampler.choose(row.logits_V, request, row.counts, row.allowed);
  if (params.logprobs < 0) return {token};
  return {token, sampler.logprobs(row.logits_V, token, params.logprobs)};
}

}  // namespace

std::vector<std::int32_t> candidates_wanted(std::span<const SampledRow> rows) {
  std::vector<std::int32_t> wanted;
  for (const SampledRow& row : rows) wanted.push_back(row.of_prompt() ? 0 : candidates_wanted(*row.request));
  return wanted;
}

BatchSampler::BatchSampler(int vocab_size, ThreadPool& pool) : pool_(pool) {
  for (int i = 0; i < pool.threads(); ++i) samplers_.emplace_back(vocab_size);
}

void BatchSampler::admit(const Request& request, std::shared_ptr<const Grammar> grammar) {
  if (request.constraint.kind == Constraint::Kind::kNone) return;
  if (!tokens_) fail("response_format: expected a model with a tokenizer, got one without");
  const int vocab_size = samplers_.front().vocab_size();
  if (std::none_of(request.stop_ids.begin(), request.stop_ids.end(),
                   [=](std::int32_t id) { return 0 <= id && id < vocab_size; }))
    fail(
        "response_format: expected a stop token that can end the text, got none (ignore_eos is set, or the model has "
        "none)");
  if (!grammar) grammar = compile_grammar(request.constraint);
  constraints_.insert_or_assign(request.id, Constrained{{std::move(grammar), tokens_}});
}

// Fills `mask` with the tokens that may come next in the request's output, and returns it.
std::span<const std::uint64_t> BatchSampler::allowed(const Request& request, std::span<std::uint64_t> mask) {
  Constrained& constrained = constraints_.at(request.id);
  for (; constrained.accepted < request.output.size(); ++constrained.accepted)
    constrained.matcher.accept(request.output[constrained.accepted]);
  constrained.matcher.fill_mask(mask);
  // If no token can follow (because a client has resubmitted an output that breaks the grammar, or because the
  // vocabulary cannot spell what must follow), the output may end.
  const bool stuck = std::all_of(mask.begin(), mask.end(), [](std::uint64_t word) { return word == 0; });
  if (!stuck && !constrained.matcher.complete()) return mask;
  for (const std::int32_t id : request.stop_ids)
    if (0 <= id && id < samplers_.front().vocab_size()) mask[id / 64] |= std::uint64_t{1} << (id % 64);
  return mask;
}

std::vector<SampledToken> BatchSampler::sample(std::span<const SampledRow> sampled, const Logits& logits) {
  const std::size_t S = sampled.size(), V = samplers_.front().vocab_size();
  std::vector<Row> rows;
  std::size_t whole = 0;
  const std::size_t words = tokens_ ? tokens_->mask_words() : 0;
  if (!constraints_.empty()) masks_.resize(S * words);
  for (std::size_t i = 0; i < S; ++i) {
    Row& row = rows.emplace_back(Row{sampled[i], {}, {}});
    const std::int32_t begin = logits.candidates_begin[i], end = logits.candidates_begin[i + 1];
    row.candidates = logits.candidates.subspan(begin, end - begin);
    if (row.candidates.empty()) row.logits_V = logits.whole_SV.subspan(whole++ * V, V);
    if (row.at.of_prompt()) continue;
    const Request& request = *row.at.request;
    FOE_CHECK(row.at.position + 1 == static_cast<int>(request.prompt.size() + request.output.size()),
              "position {} of request {} is not its last", row.at.position, request.id);
    if (request.constraint.kind != Constraint::Kind::kNone) {
      tell_();
      row.allowed = allowed(request, std::span(masks_).subspan(i * words, words));
    }
    if (!has_penalties(request.sampling)) continue;
    TokenCounts& counts = counts_[request.id];
    counts.update(request);
    row.counts = &counts;  // elements of an unordered_map do not move when others are added
  }
  std::vector<SampledToken> tokens(S);
  std::vector<char> is_finite(S);
  const std::size_t threads = std::min(samplers_.size(), S);
  pool_.parallel_for(threads, [&](std::size_t t) {
    for (std::size_t i = t; i < S; i += threads) {
      tokens[i] = sample_row(samplers_[t], rows[i]);
      is_finite[i] = finite(rows[i], tokens[i].token);
    }
  });
  not_finite_.clear();
  for (std::size_t i = 0; i < S; ++i)
    if (!is_finite[i]) not_finite_.insert(rows[i].at.request->id);
  return tokens;
}

}  // namespace foe
