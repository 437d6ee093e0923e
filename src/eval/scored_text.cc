#include "eval/scored_text.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/error.h"
#include "base/strict_json.h"
#include "eval/text_rules.h"

namespace foe {
namespace {

template <typename Length>
int most_likely(const Question& question, const std::vector<double>& loglikelihoods, Length length) {
  int best = 0;
  double most = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < loglikelihoods.size(); ++i) {
    const double value = loglikelihoods[i] / static_cast<double>(length(question.choices[i]));
    if (value > most) {
      most = value;
      best = static_cast<int>(i);
    }
  }
  return best;
}

}  // namespace

ScoredTokens encode_choice(const Tokenizer& tokenizer, std::string_view context, std::string_view continuation,
                           int most, bool add_special_tokens) {
  const EncodeOptions options{.add_special_tokens = add_special_tokens};
  const std::string whole = std::string(context) + std::string(continuation);
  ScoredTokens scored{tokenizer.encode(whole, options)};
  const std::size_t before = tokenizer.encode(strip_right(context), options).size();
  if (before == 0 || before >= scored.tokens.size())
    fail("expected tokens of a context and of a choice, got {} and {} in '{}'", before,
         scored.tokens.size() - std::min(before, scored.tokens.size()), shorten(whole));
  const std::size_t choice = scored.tokens.size() - before;
  if (choice >= static_cast<std::size_t>(most))
    fail("expected a choice of fewer than {} tokens, got {} in '{}'", most, choice, shorten(std::string(continuation)));
  scored.dropped = std::max(scored.tokens.size(), static_cast<std::size_t>(most)) - most;
  scored.tokens.erase(scored.tokens.begin(), scored.tokens.begin() + static_cast<std::ptrdiff_t>(scored.dropped));
  scored.from = static_cast<int>(before - scored.dropped);
  return scored;
}

std::vector<Window> sliding_windows(std::size_t tokens, std::size_t window, std::size_t stride) {
  FOE_CHECK(tokens >= 2 && stride >= 1 && stride < window, "{} tokens, window {}, stride {}", tokens, window, stride);
  std::vector<Window> windows;
  for (std::size_t from = 1; from < tokens; from = windows.back().end) {
    const std::size_t end = std::min(tokens, from == 1 ? window : from + stride);
    windows.push_back({end - std::min(window, end), from, end});
  }
  return windows;
}

Choice choose(const Question& question, std::vector<double> loglikelihoods) {
  FOE_CHECK(loglikelihoods.size() == question.choices.size(), "{} scores of {} choices", loglikelihoods.size(),
            question.choices.size());
  Choice choice;
  choice.best = most_likely(question, loglikelihoods, [](const std::string&) { return 1; });
  choice.by_characters = most_likely(question, loglikelihoods, count_characters);
  choice.by_bytes = most_likely(question, loglikelihoods, [](const std::string& text) { return text.size(); });
  choice.loglikelihoods = std::move(loglikelihoods);
  return choice;
}

Accuracy accuracy(std::span<const Question> questions, std::span<const Choice> choices, int Choice::*chosen) {
  FOE_CHECK(!questions.empty() && questions.size() == choices.size(), "{} questions, {} choices", questions.size(),
            choices.size());
  double right = 0;
  for (std::size_t i = 0; i < questions.size(); ++i) right += choices[i].*chosen == questions[i].answer;
  // The squares of n values of 0 or 1, of which `right` are 1, from their mean p add up to n p (1 - p).
  const auto n = static_cast<double>(questions.size());
  const double mean = right / n;
  return {mean, n > 1 ? std::sqrt(mean * (1 - mean) / (n - 1)) : std::numeric_limits<double>::quiet_NaN()};
}

}  // namespace foe
