// Reads a Hugging Face tokenizer.json into plain data, and checks that foe supports what it asks for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"

namespace foe {

// Limits on what a file may ask for. All are far above what real tokenizers have.
inline constexpr std::size_t kMaxTokenizerFileBytes = 64u << 20;
inline constexpr std::size_t kMaxTokenBytes = 4096;
// The most ids that may be put around a text. Templates refer to tokens by name, so a short file could ask for any
// number of ids.
inline constexpr std::size_t kMaxTemplateIds = 4096;
// Returns the largest id that a file with so many tokens may have. Ids may have gaps, but a small file must not ask for
// a large table.
constexpr std::int64_t max_token_id(std::size_t tokens) {
  return 2 * static_cast<std::int64_t>(tokens) + 65536;
}

struct VocabEntry {
  std::string token;  // in the byte-level alphabet
  std::int32_t id = 0;
};

struct TokenizerSpec {
  std::vector<VocabEntry> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
  bool ignore_merges = false;                               // a word that is a token is not cut into merges
  std::vector<AddedToken> added_tokens;
  std::vector<NormalForm> normal_forms;  // applied in order
  PreTokenizer pre_tokenizer;
  std::vector<std::int32_t> prefix_ids;  // what the post-processor puts before a text, and after it
  std::vector<std::int32_t> suffix_ids;
};

// Throws Error, naming the member, what was expected and what was found. Members for truncation and padding are
// ignored. Ids in the result are non-negative and at most max_token_id(); whether names in merges exist is not checked
// here.
TokenizerSpec parse_tokenizer_json(std::string_view text);

}  // namespace foe
