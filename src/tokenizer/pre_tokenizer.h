// Pre-tokenisation: cuts text into words. BPE merges only inside words.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/regex.h"

namespace foe {

// What happens to the parts that a pattern matches ("delimiters").
enum class SplitBehavior {
  kIsolated,            // each is a word
  kRemoved,             // dropped
  kMergedWithPrevious,  // each ends the word before it
  kMergedWithNext,      // each begins the word after it
  kContiguous,          // each run of delimiters is a word
};

struct SplitStep {
  std::variant<Regex, std::string> pattern;  // a regex, or a text to find
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // the pattern matches words, and the rest are delimiters
};

struct PreTokenizer {
  std::vector<SplitStep> steps;           // each cuts the words that the one before it made
  bool add_prefix_space = false;          // then every word that does not begin with a space gets one
  std::optional<SplitStep> after_prefix;  // then this cuts once more (ByteLevel's own regex)
};

// Returns GPT-2's pattern, which ByteLevel uses with use_regex.
SplitStep gpt2_split();

// Calls `word` with every non-empty word of `text` (valid UTF-8) in order. The view is valid during the call. Throws
// Error if a regular expression takes too many steps (Regex::find_all).
void pre_tokenize(const PreTokenizer& rules, std::string_view text, RegexScratch& scratch,
                  const std::function<void(std::string_view)>& word);

}  // namespace foe
