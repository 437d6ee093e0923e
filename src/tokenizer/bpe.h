// Byte-pair encoding (Sennrich, Haddow, Birch 2016). A word is first cut into symbols, which are bytes or characters;
// then the pair of neighbours with the lowest rank is merged, over and over, the leftmost if there are several.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/pair_table.h"
#include "tokenizer/trie.h"

namespace foe {

struct BpeMerge {
  std::uint32_t rank = 0;   // lower ranks merge first
  std::int32_t result = 0;  // id of the merged token
};
using MergeTable = PairTable<BpeMerge>;  // by the ids of the left and the right token

// An array by byte without ids.
constexpr std::array<std::int32_t, 256> no_byte_ids() {
  std::array<std::int32_t, 256> ids{};
  ids.fill(-1);
  return ids;
}

struct Bpe {
  bool symbols_are_bytes = true;
  std::unordered_map<char32_t, std::int32_t> character_ids;  // if they are characters
  // The ids of bytes, or -1. If symbols are bytes, these are the symbols. Otherwise they stand for a character without
  // an id, if each of its bytes has one.
  std::array<std::int32_t, 256> byte_ids = no_byte_ids();
  std::int32_t unknown_id = -1;  // stands for any other symbol; -1: such symbols are left out
  bool fuse_unknown = false;     // neighbours of this kind are one token
  Trie whole;                    // texts that are symbols and do not merge, if symbols are characters

  MergeTable merges;
  // Ids from here on are no tokens, but characters that are only part of tokens, by id - first_part. Those that have
  // not been merged in the end are treated like characters without an id.
  std::int32_t first_part = -1;
  std::vector<char32_t> parts;
};

// Appends the token ids of one word (UTF-8 if symbols are characters) of at most 2^31 - 1 bytes in O(n log n) time.
void encode_word(const Bpe& bpe, std::string_view word, std::vector<std::int32_t>& ids);

}  // namespace foe
