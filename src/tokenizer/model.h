// What makes tokens of a word.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer_spec.h"
#include "tokenizer/unigram.h"

namespace foe {

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <typename Value>
using TextMap = std::unordered_map<std::string, Value, TextHash, std::equal_to<>>;

// Immutable; any thread may use it.
class WordModel {
 public:
  // `names` has the ids of the vocabulary. Throws Error, naming the member, if a merge is of tokens that are not there.
  WordModel(const TokenizerSpec& spec, const std::unordered_map<std::string_view, std::int32_t>& names);

  // Appends the ids of a word. Throws Error if a character is unknown, and no token stands for such ones.
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

  // Whether the bytes of any word are tokens.
  bool knows_all() const { return knows_all_; }
  // Whether each character of a word becomes at least one token, or is part of one.
  bool keeps_all() const { return keeps_all_; }

 private:
  std::variant<Bpe, Unigram> model_;
  TextMap<std::int32_t> words_;  // words that are tokens, if they are not cut into merges
  bool knows_all_ = true, keeps_all_ = true;
};

}  // namespace foe
