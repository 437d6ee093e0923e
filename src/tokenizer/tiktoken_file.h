// Reads a vocabulary of the `tiktoken` library: a line for each token, with its bytes in base64 and its rank. Two
// tokens merge if they are a token together, those with lower ranks first.
#pragma once

#include <string_view>

#include "tokenizer/tokenizer_spec.h"

namespace foe {

// Whether a file looks like such a vocabulary; others of the same name are SentencePiece's.
bool is_tiktoken_file(std::string_view text);

// How words are cut before they are merged. The file does not say it.
struct TiktokenRules {
  std::string pattern;
  std::vector<NormalizerStep> normalizer = {};
};
// Returns the rules of the Python class that reads the vocabulary of a known family; an empty pattern if it is not
// known.
TiktokenRules tiktoken_rules(std::string_view tokenizer_class);

// Throws Error, naming the line, if the file is malformed, or a byte is no token.
TokenizerSpec parse_tiktoken_file(std::string_view text, const TiktokenRules& rules);

}  // namespace foe
