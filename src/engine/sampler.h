// The choice of the next token, and what is reported of its probability: pure functions of a row of logits and the
// request's parameters and tokens, whatever else runs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/aligned.h"
#include "core/request.h"
#include "kernels/rows/candidates.h"

namespace foe {

// What a request may ask for at most. The entries of a prompt's logprobs travel in one message (server/ranks/link.h):
// the last is on how many tokens they name, the prompt's own included.
inline constexpr int kMaxLogprobs = 20;
inline constexpr std::size_t kMaxLogitBias = 1024;
inline constexpr std::size_t kMaxPromptLogprobs = 6 << 20;

// Throws Error naming the field and its range.
void validate(const SamplingParams& params);
// And, beyond that, what depends on the request's tokens and on the model. Stop ids are not checked: those that the
// vocabulary does not have never come.
void validate(const Request& request, int vocab_size);

bool has_penalties(const SamplingParams& params);

// What penalties look at: the tokens of a request's prompt and output.
class TokenCounts {
 public:
  // Counts what has come since the last call. The request's tokens are those of the last call, and more.
  void update(const Request& request);
  // Of each token that prompt or output have, how often the output has it.
  const std::unordered_map<std::int32_t, int>& output() const { return output_; }

 private:
  std::size_t counted_ = 0;  // tokens of prompt and output
  std::unordered_map<std::int32_t, int> output_;
};

// How many of the most likely tokens are enough to choose the request's next one as from all; 0: all are needed.
int candidates_wanted(const Request& request);

// One thread: holds the scratch memory, and nothing that outlives a call.
class Sampler {
 public:
  explicit Sampler(int vocab_size);
  int vocab_size() const { return static_cast<int>(weights_V_.size()); }

  // The output token that comes next. `counts` are up to date; a request without penalties needs none. `allowed`: a bit
  // for each token, the first in the lowest bit of the first word, and at least one of them set; empty: all are
  // allowed. Where nothing is left to choose from (a constraint allows only stop ids and min_tokens forbids these, or
  // the model gives no finite logits), the first allowed token.
  std::int32_t choose(std::span<const float> logits_V, const Request& request, const TokenCounts* counts = nullptr,
                      std::span<const std::uint64_t> allowed = {});
  // The same from the most likely tokens, candidates_wanted() of them or more, in any order.
  std::int32_t choose(std::span<const Candidate> candidates, const Request& request);

  // `token`, and the `top` most likely ones, with the natural logarithms of the probabilities that the logits give them
  // (summed in double in the order of the vocabulary); -inf where that is not a number.
  LogprobEntry logprobs(std::span<const float> logits_V, std::int32_t token, int top);

 private:
  std::span<const float> adjust(std::span<const float> logits_V, const Request& request, const TokenCounts* counts,
                                std::span<const std::uint64_t> allowed);
  std::int32_t choose_candidate(const Request& request);
  std::optional<std::size_t> draw(std::span<const float> logits, const Request& request);
  void find_bucket(std::span<const float> weights, std::uint32_t bucket);
  double cut_nucleus(std::span<const float> weights, double top_p, double total, std::uint32_t& lowest);

  AlignedBuffer<float> adjusted_V_, weights_V_;
  std::vector<Candidate> candidates_;  // the most likely first
  std::vector<float> candidate_logits_;
  std::vector<double> bucket_sums_;
  std::vector<std::uint32_t> bucket_;  // indices of the weights of one bucket
};

}  // namespace foe
