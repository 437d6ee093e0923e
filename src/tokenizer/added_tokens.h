// Added tokens: texts that become one token wherever they occur, before any other rule is applied.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/trie.h"

namespace foe {

struct VocabEntry;

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = false;      // a control token: can be left out in decoding, and is not read in untrusted text
  bool single_word = false;  // matches only if no word character is next to it
  bool lstrip = false;       // includes the white space to its left
  bool rstrip = false;       // includes the white space to its right
  bool normalized = false;   // is looked for in normalised text, in its own normalised form
};

// Gives ids to added tokens, as the `tokenizers` library does: a token of the vocabulary has its id, and others have
// the next ones, from the number of tokens in the vocabulary on.
class AddedTokenList {
 public:
  // `added`: the tokens that are there already, with their ids.
  explicit AddedTokenList(const std::vector<VocabEntry>& vocab, std::vector<AddedToken> added = {});

  // Adds a token and returns its id; token.id does not matter. If its content is there, the new flags count, but it
  // stays special.
  std::int32_t add(AddedToken token);
  bool contains(const std::string& content) const { return index_.contains(content); }
  std::vector<AddedToken> take() { return std::move(tokens_); }

 private:
  std::unordered_map<std::string, std::int32_t> vocab_;
  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, std::size_t> index_;  // content -> place in tokens_
  std::int32_t next_id_;
};

// Finds added tokens in text from left to right, at each place the longest, without overlaps. Any thread may call const
// functions.
class AddedTokenMatcher {
 public:
  // Throws Error if two tokens have the same content.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Calls `token` with the id of each token found, and `text` with each non-empty piece between them, in order. A token
  // that must not match (it is special and !parse_special, or single_word and inside a word) stays part of a piece.
  void split(std::string_view input, bool parse_special, const std::function<void(std::int32_t)>& token,
             const std::function<void(std::string_view)>& text) const;

 private:
  std::vector<AddedToken> tokens_;
  Trie trie_;  // indices into tokens_
};

}  // namespace foe
