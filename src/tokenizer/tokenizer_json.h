// A Hugging Face tokenizer.json as plain data: what of it foe supports, checked.
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

// Limits on what a file may ask for, all far above real tokenizers.
inline constexpr std::size_t kMaxTokenizerFileBytes = 64u << 20;
inline constexpr std::size_t kMaxTokenBytes = 4096;
// Around every text. Templates name tokens by reference, so a short file could ask for any number of ids.
inline constexpr std::size_t kMaxTemplateIds = 4096;
// Ids may have holes, but not so many that a small file asks for a large table.
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
  bool ignore_merges = false;                               // a word that is a token is that token
  std::vector<AddedToken> added_tokens;
  std::vector<NormalForm> normal_forms;  // applied in order
  PreTokenizer pre_tokenizer;
  std::vector<std::int32_t> prefix_ids;  // what the post-processor puts before and after a text
  std::vector<std::int32_t> suffix_ids;
};

// Throws Error naming the member, what was expected and what was found. Members for truncation and padding are ignored:
// lengths are the caller's business. Ids are non-negative and within max_token_id; nothing else is looked up yet.
TokenizerSpec parse_tokenizer_json(std::string_view text);

}  // namespace foe
