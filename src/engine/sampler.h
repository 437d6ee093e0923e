// Chooses the next token, and reports probabilities. The results are pure functions of a row of logits and of the
// request's parameters and tokens: they do not depend on what else runs.
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

// The limits of a request. Of a prompt the whole vocabulary may be reported, where a server allows that. The logprobs
// of a prompt travel in one message (server/ranks/link.h), so kMaxPromptLogprobs bounds how many tokens they name
// together, the prompt's own included.
inline constexpr int kMaxLogprobs = 20;
inline constexpr std::size_t kMaxLogprobTokens = 128;
inline constexpr std::size_t kMaxLogitBias = 1024;
inline constexpr std::size_t kMaxPromptLogprobs = 6 << 20;

// Throws Error, naming the field and its range, if a parameter is out of range.
void validate(const SamplingParams& params);
// The same, and checks what depends on the request's tokens and on the model. Stop ids are not checked: ids that the
// vocabulary does not have are never chosen.
void validate(const Request& request, int vocab_size);

bool has_penalties(const SamplingParams& params);

// The tokens of a request's prompt and output, counted for the penalties.
class TokenCounts {
 public:
  // Counts the tokens that have come since the last call: `text` is a prompt of so many tokens and an output, and
  // begins with the text of the last call.
  void update(std::span<const std::int32_t> text, std::size_t prompt);
  // For each token of prompt or output, how often the output has it.
  const std::unordered_map<std::int32_t, int>& output() const { return output_; }

 private:
  std::size_t counted_ = 0;  // how many tokens of prompt and output are counted
  std::unordered_map<std::int32_t, int> output_;
};

// The tokens of a request before the one that is to be chosen: its prompt, and an output.
using Text = std::span<const std::int32_t>;

// Whether the token after `text` is the end of the request's reasoning, because this has as many tokens as it may. What
// is reasoning begins with the output, or behind a mark among its first few tokens, as white space may come before it.
bool must_end_reasoning(const Request& request, Text text);

// Returns how many of the most likely tokens are enough to choose the token after `text` as if from all; 0 if all
// logits are needed.
int candidates_wanted(const Request& request, Text text);

// Holds scratch memory, so each thread needs its own. It keeps no state between calls.
class Sampler {
 public:
  explicit Sampler(int vocab_size);
  int vocab_size() const { return static_cast<int>(weights_V_.size()); }

  // Returns the token after `text`. `counts` has all tokens of the text; it may be null for a request without
  // penalties. `allowed` has a bit for each token, the first in the lowest bit of the first word, of which at least one
  // must be set; if it is empty, all tokens are allowed. If nothing is left to choose from (a constraint allows only
  // stop ids that min_tokens forbids, or no logit is finite), this returns the first allowed token.
  std::int32_t choose(std::span<const float> logits_V, const Request& request, Text text,
                      const TokenCounts* counts = nullptr, std::span<const std::uint64_t> allowed = {});
  // The same from candidates, in any order: at least the candidates_wanted() most likely tokens.
  std::int32_t choose(std::span<const Candidate> candidates, const Request& request, Text text);

  // Returns the logprob of `token`, and the `top` most likely tokens with theirs or, if there are any, `others` and
  // `token`. A logprob is the natural logarithm of the probability, whose denominator is summed in double in the order
  // of the vocabulary; it is -inf where it would not be a number.
  LogprobEntry logprobs(std::span<const float> logits_V, std::int32_t token, int top,
                        std::span<const std::int32_t> others = {});

 private:
  std::span<const float> adjust(std::span<const float> logits_V, const Request& request, Text text,
                                const TokenCounts* counts, std::span<const std::uint64_t> allowed);
  std::int32_t choose_candidate(const Request& request, Text text);
  std::optional<std::size_t> draw(std::span<const float> logits, const Request& request, Text text);
  void find_bucket(std::span<const float> weights, std::uint32_t bucket);
  double cut_nucleus(std::span<const float> weights, double top_p, double total, std::uint32_t& lowest);

  AlignedBuffer<float> adjusted_V_, weights_V_;
  std::vector<Candidate> candidates_;  // in descending order
  std::vector<float> candidate_logits_;
  std::vector<double> bucket_sums_;
  std::vector<std::uint32_t> bucket_;  // indices of the weights of one bucket
};

}  // namespace foe
