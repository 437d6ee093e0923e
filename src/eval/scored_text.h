// The sequences of tokens whose log-probabilities an evaluation needs, and what is made of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"
#include "tokenizer/tokenizer.h"

namespace foe {

// Tokens [from, tokens.size()) are scored, each given those before it. Requires 1 <= from < tokens.size().
struct ScoredTokens {
  std::vector<std::int32_t> tokens;
  int from = 1;
  std::size_t dropped = 0;  // tokens before these that were left out
};

// Returns the tokens of a context and its continuation, of which those of the continuation are scored. As in
// lm-evaluation-harness, spaces at the end of the context count to the continuation, both are encoded together, and the
// continuation is what is behind as many tokens as the context alone has. Of more than `most` tokens the first are left
// out. Throws Error if the continuation has no tokens, or leaves none of `most` for the context.
ScoredTokens encode_choice(const Tokenizer& tokenizer, std::string_view context, std::string_view continuation,
                           int most, bool add_special_tokens);

// Tokens [begin, end) of a text, of which [from, end) are scored.
struct Window {
  std::size_t begin = 0, from = 0, end = 0;
};

// Returns windows of at most `window` of `tokens` tokens, of which the first one stands before the text. Each of the
// others is scored in one window: the first window scores all that it has but the first token, each later one its last
// `stride` (the last window those that are left), so that all but the first `window` tokens have at least window -
// stride tokens before them. Requires at least two tokens and 1 <= stride < window.
std::vector<Window> sliding_windows(std::size_t tokens, std::size_t window, std::size_t stride);

// What a model chose for one question. Among equals, the first.
struct Choice {
  std::vector<double> loglikelihoods;  // of each choice
  int best = 0;                        // the most likely
  int by_characters = 0;               // the most likely for its number of characters
  int by_bytes = 0;                    // the most likely for its number of bytes
};
Choice choose(const Question& question, std::vector<double> loglikelihoods);

// The share of right choices and its standard error: the sample's standard deviation, with n - 1, over sqrt(n). The
// error of one question is NaN.
struct Accuracy {
  double mean = 0, error = 0;
};
Accuracy accuracy(std::span<const Question> questions, std::span<const Choice> choices, int Choice::*chosen);

}  // namespace foe
