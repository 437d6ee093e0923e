// Pre-tokenisation: cutting text into the words inside which BPE merges.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/regex.h"

namespace foe {

// What becomes of the parts that a pattern matches ("delimiters").
enum class SplitBehavior {
  kIsolated,            // a word each
  kRemoved,             // dropped
  kMergedWithPrevious,  // end the word before them
  kMergedWithNext,      // start the word after them
  kContiguous,          // a word for each run of delimiters
};

struct SplitStep {
  std::variant<Regex, std::string> pattern;  // a regex, or a text to find
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what the pattern matches are the words, the rest are the delimiters
};

struct PreTokenizer {
  std::vector<SplitStep> steps;           // each cuts what the one before it made
  bool add_prefix_space = false;          // then a space before every word that does not start with one
  std::optional<SplitStep> after_prefix;  // and a last cut (ByteLevel's own regex)
};

// GPT-2's pattern, which ByteLevel with use_regex stands for.
SplitStep gpt2_split();

// Calls `word` with every non-empty word of `text` (valid UTF-8) in order; the view lives as long as the call.
void pre_tokenize(const PreTokenizer& rules, std::string_view text, RegexScratch& scratch,
                  const std::function<void(std::string_view)>& word);

}  // namespace foe
