// Pre-tokenisation: cuts text into words. Tokens are made inside words only.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/normalizer.h"
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
  TextPattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // the pattern matches words, and the rest are delimiters
};

struct PrefixSpaceStep {};  // every word that does not begin with a space gets one

// Replaces spaces by a character, as SentencePiece does.
struct MetaspaceStep {
  enum class Prepend { kAlways, kFirst, kNever };
  std::string replacement = "\xe2\x96\x81";  // one character
  Prepend prepend = Prepend::kAlways;        // also before a word without it; or only before the first word of all
  bool split = true;                         // then words begin with it
};

using PreTokenizerStep = std::variant<SplitStep, PrefixSpaceStep, MetaspaceStep>;
using PreTokenizer = std::vector<PreTokenizerStep>;  // each step works on the words that the one before it made

// Returns GPT-2's pattern, which ByteLevel uses with use_regex.
SplitStep gpt2_split();

// Calls `word` with every non-empty word of `text` (valid UTF-8) in order. The view is valid during the call.
// `at_start` says whether the text is the beginning of what is encoded, and not a piece behind an added token. Throws
// Error if a regular expression takes too many steps (Regex::find_all), or the words become longer in all than
// most_rewritten_bytes.
void pre_tokenize(const PreTokenizer& steps, std::string_view text, bool at_start, RegexScratch& scratch,
                  const std::function<void(std::string_view)>& word);

}  // namespace foe
