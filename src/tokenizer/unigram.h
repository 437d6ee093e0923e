// Unigram language models (Kudo 2018): of all ways to cut a word into tokens, the one whose scores have the largest
// sum.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/trie.h"

namespace foe {

struct Unigram {
  Trie words;                  // the tokens that can be part of a word, with their ids
  std::vector<double> scores;  // by id: the logarithm of a probability
  double unknown_score = 0;    // of a character that is no token
  // A run of such characters becomes its bytes' ids if each has one, or else this one. If it is -1, the text is
  // refused.
  std::int32_t unknown_id = -1;
  std::array<std::int32_t, 256> byte_ids = no_byte_ids();
  bool single_precision = false;  // sums are rounded to float, as SentencePiece does
};

// Appends the token ids of one word, which is valid UTF-8 of at most 2^31 - 2 bytes. Takes time for each byte times the
// length of the longest token. Throws Error if a character is unknown and unknown_id is -1.
void encode_word(const Unigram& unigram, std::string_view word, std::vector<std::int32_t>& ids);

}  // namespace foe
