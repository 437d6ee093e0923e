#include "engine/batch_sampler.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"

namespace foe {
namespace {

// Whether the logits that a token was chosen from are finite. Logits that are NaN count as -inf, so they are among the
// largest only if all are.
bool finite(std::span<const float> logits_V, std::span<const Candidate> candidates, std::int32_t token) {
  if (candidates.empty()) return std::isfinite(logits_V[token]);
  return std::ranges::all_of(candidates, [](const Candidate& c) { return std::isfinite(c.logit); });
}

}  // namespace

std::vector<std::int32_t> candidates_wanted(std::span<const SampledRow> rows) {
  std::vector<std::int32_t> wanted;
  for (const SampledRow& row : rows)
    wanted.push_back(row.request->pools() ? kWantsState
                     : row.of_prompt()    ? 0
                                          : candidates_wanted(*row.request, row.text));
  return wanted;
}

BatchSampler::BatchSampler(int vocab_size, ThreadPool& pool) : pool_(pool) {
  for (int i = 0; i < pool.threads(); ++i) samplers_.emplace_back(vocab_size);
}

void BatchSampler::admit(const Request& request, std::shared_ptr<const Grammar> grammar) {
  if (request.constraint.kind == Constraint::Kind::kNone) return;
  if (!tokens_) fail("structured output: expected a model with a tokenizer, got one without");
  const int vocab_size = samplers_.front().vocab_size();
  if (std::none_of(request.stop_ids.begin(), request.stop_ids.end(),
                   [=](std::int32_t id) { return 0 <= id && id < vocab_size; }))
    fail(
        "structured output: expected a stop token that can end the text, got none (ignore_eos is set, or the model has "
        "none)");
  if (!grammar) grammar = compile_grammar(request.constraint);
  constraints_.insert_or_assign(request.id, Constrained{{std::move(grammar), tokens_}, request.reasoning});
}

// If the grammar itself allows the mark at the beginning, it is a part of the text that the grammar is for.
void BatchSampler::Constrained::accept(std::int32_t token) {
  const bool may_be_mark = may_begin() && token == marks.begin;
  ++accepted;
  if (reasons) {
    reasons = token != marks.end;
    return;
  }
  std::optional<GrammarMatcher> before;
  if (may_be_mark) before = matcher;
  matcher.accept(token);
  if (!before || !matcher.dead()) return;
  matcher = *std::move(before);
  reasons = true;
}

// Fills `mask` with the tokens that may come next in the row's output, and returns it.
std::span<const std::uint64_t> BatchSampler::allowed(const SampledRow& row, std::span<std::uint64_t> mask) {
  Constrained& constrained = constraints_.at(row.request->id);
  const std::span<const std::int32_t> output = row.text.subspan(row.request->prompt.size());
  while (constrained.accepted < output.size()) constrained.accept(output[constrained.accepted]);
  const auto set = [&](std::int32_t id, bool on) {
    if (id < 0 || id >= samplers_.front().vocab_size()) return;
    const std::uint64_t bit = std::uint64_t{1} << (id % 64);
    mask[id / 64] = on ? mask[id / 64] | bit : mask[id / 64] & ~bit;
  };
  if (constrained.reasons) {  // all but what would end the output before its text
    std::ranges::fill(mask, ~std::uint64_t{0});
    for (const std::int32_t id : row.request->stop_ids) set(id, id == constrained.marks.end);
    return mask;
  }
  constrained.matcher.fill_mask(mask);
  // If no token can follow (because a client has resubmitted an output that breaks the grammar, or because the
  // vocabulary cannot spell what must follow), the output may end.
  const bool stuck = std::all_of(mask.begin(), mask.end(), [](std::uint64_t word) { return word == 0; });
  if (stuck || constrained.matcher.complete())
    for (const std::int32_t id : row.request->stop_ids) set(id, true);
  if (constrained.may_begin()) set(constrained.marks.begin, true);
  return mask;
}

std::vector<BatchSampler::Row> BatchSampler::rows_with(std::span<const SampledRow> sampled, const Logits& logits,
                                                       std::size_t vocab_size) {
  std::vector<Row> rows;
  std::size_t whole = 0, scored = 0, states = 0;
  const std::size_t count = std::ranges::count_if(sampled, [](const SampledRow& row) { return row.request->pools(); });
  const std::size_t width = count > 0 ? logits.states.size() / count : 0;
  for (const SampledRow& at : sampled) {
    Row& row = rows.emplace_back(Row{at, {}, {}, {}});
    if (at.request->pools()) {
      row.state_D = logits.states.subspan(states++ * width, width);
      continue;
    }
    const std::int32_t begin = logits.candidates_begin[scored], end = logits.candidates_begin[++scored];
    row.candidates = logits.candidates.subspan(begin, end - begin);
    if (row.candidates.empty()) row.logits_V = logits.whole_SV.subspan(whole++ * vocab_size, vocab_size);
  }
  return rows;
}

// Brings what is kept for the row's request up to the row's text.
void BatchSampler::prepare(Row& row, std::span<std::uint64_t> mask) {
  if (row.at.of_prompt()) return;
  const Request& request = *row.at.request;
  if (request.constraint.kind != Constraint::Kind::kNone) {
    tell_();
    row.allowed = allowed(row.at, mask);
  }
  if (!has_penalties(request.sampling)) return;
  TokenCounts& counts = counts_[request.id];
  counts.update(row.at.text, request.prompt.size());
  row.counts = &counts;  // elements of an unordered_map do not move when others are added
}

SampledToken BatchSampler::sample_row(Sampler& sampler, const Row& row) {
  const Request& request = *row.at.request;
  const SamplingParams& params = request.sampling;
  if (row.at.of_prompt()) {
    const std::int32_t token = request.prompt[row.at.text.size()];
    return {token, sampler.logprobs(row.logits_V, token, params.prompt_logprobs)};
  }
  const bool ends = must_end_reasoning(request, row.at.text);
  if (!row.candidates.empty())
    return {ends ? request.reasoning.end : sampler.choose(row.candidates, request, row.at.text)};
  const std::int32_t token =
      ends ? request.reasoning.end : sampler.choose(row.logits_V, request, row.at.text, row.counts, row.allowed);
  if (params.logprobs < 0) return {token};
  return {token, sampler.logprobs(row.logits_V, token, params.logprobs, params.logprob_tokens)};
}

// A row that assumes a token is sampled in the round after the row before it, and only if that has chosen this token.
// So what is kept for a request sees its text and nothing that was guessed wrong.
std::vector<SampledToken> BatchSampler::sample(std::span<const SampledRow> sampled, const Logits& logits) {
  const std::size_t S = sampled.size();
  std::vector<Row> rows = rows_with(sampled, logits, samplers_.front().vocab_size());
  const std::size_t words = tokens_ ? tokens_->mask_words() : 0;
  if (!constraints_.empty()) masks_.resize(S * words);
  std::vector<SampledToken> tokens(S);
  std::vector<char> is_finite(S, true);
  std::vector<std::size_t> round;
  for (std::size_t i = 0; i < S; ++i) {
    if (const std::span state_D = rows[i].state_D; !state_D.empty()) {
      is_finite[i] = std::ranges::all_of(state_D, [](float x) { return std::isfinite(x); });
      tokens[i].state = states_.take(sampled[i], state_D);
    } else if (i == 0 || !sampled[i].assumes(sampled[i - 1])) {
      round.push_back(i);
    }
  }
  while (!round.empty()) {
    for (const std::size_t i : round)
      prepare(rows[i], constraints_.empty() ? std::span<std::uint64_t>() : std::span(masks_).subspan(i * words, words));
    const std::size_t threads = std::min(samplers_.size(), round.size());
    pool_.parallel_for(threads, [&](std::size_t t) {
      for (std::size_t r = t; r < round.size(); r += threads) {
        const Row& row = rows[round[r]];
        tokens[round[r]] = sample_row(samplers_[t], row);
        is_finite[round[r]] = finite(row.logits_V, row.candidates, tokens[round[r]].token);
      }
    });
    std::vector<std::size_t> next;
    for (const std::size_t i : round)
      if (i + 1 < S && sampled[i + 1].assumes(sampled[i]) && sampled[i + 1].text.back() == tokens[i].token)
        next.push_back(i + 1);
    round = std::move(next);
  }
  not_finite_.clear();
  for (std::size_t i = 0; i < S; ++i)
    if (!is_finite[i]) not_finite_.insert(sampled[i].request->id);
  return tokens;
}

}  // namespace foe
