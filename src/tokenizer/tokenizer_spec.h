// A tokenizer as plain data, whichever file it was read from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"

namespace foe {

// Limits on what a file may ask for. All are far above what real tokenizers have.
inline constexpr std::size_t kMaxTokenizerFileBytes = 64u << 20;
inline constexpr std::size_t kMaxTokenBytes = 4096;
// The same where time or memory grows with the length of tokens: in Unigram models, and BPE without a list of merges.
inline constexpr std::size_t kMaxScoredTokenBytes = 512;
// The most ids that may be put around a text. Templates refer to tokens by name, so a short file could ask for any
// number of ids.
inline constexpr std::size_t kMaxTemplateIds = 4096;
// Returns the largest id that a file with so many tokens may have. Ids may have gaps, but a small file must not ask for
// a large table.
constexpr std::int64_t max_token_id(std::size_t tokens) {
  return 2 * static_cast<std::int64_t>(tokens) + 65536;
}

struct VocabEntry {
  enum class Kind : std::uint8_t {
    kWord,     // made by merging, or a part of the best cut of a word
    kWhole,    // wherever it is in a text, it is this token (SentencePiece's user-defined pieces)
    kNotText,  // no part of a text becomes it
  };
  std::string name;  // in the byte-level alphabet, if byte_level
  std::int32_t id = 0;
  double score = 0;
  Kind kind = Kind::kWord;
};

struct TokenizerSpec {
  enum class Model { kBpe, kUnigram };
  Model model = Model::kBpe;
  bool byte_level = false;  // BPE: words are bytes instead of characters
  std::vector<VocabEntry> vocab;
  // BPE: the pairs that merge, by their names in order of rank; if there is no list, any two tokens (or characters)
  // merge that are a token together, those with higher scores first.
  std::optional<std::vector<std::pair<std::string, std::string>>> merges;
  bool ignore_merges = false;              // BPE: a word that is a token is not cut into merges
  bool byte_fallback = false;              // an unknown character becomes its bytes' tokens, "<0x0A>"
  bool fuse_unknown = false;               // BPE
  std::optional<std::int32_t> unknown_id;  // without it, BPE leaves out unknown symbols, and Unigram refuses the text
  double unknown_score = 0;                // Unigram
  bool single_precision = false;           // Unigram
  std::vector<AddedToken> added_tokens;    // by their final ids
  std::vector<NormalizerStep> normalizer;
  PreTokenizer pre_tokenizer;
  DecoderSpec decoder;
  std::vector<std::pair<std::int32_t, std::string>> texts;  // ids that decode to these texts, whatever their names say
  std::vector<std::int32_t> prefix_ids;                     // what is put before a text, and after it
  std::vector<std::int32_t> suffix_ids;
  std::optional<std::int32_t> end_id;  // the end of a text
  std::vector<std::string> notes;      // what was not as the file says
  std::string digest;                  // of what the files say: SHA-256
};

}  // namespace foe
