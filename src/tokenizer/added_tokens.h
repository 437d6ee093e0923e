// Added tokens: texts that become one token wherever they occur, before any other rule is applied.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = false;      // a control token: can be left out in decoding, and is not read in untrusted text
  bool single_word = false;  // matches only if no word character is next to it
  bool lstrip = false;       // includes the white space to its left
  bool rstrip = false;       // includes the white space to its right
  bool normalized = false;   // is looked for in normalised text, in its own normalised form
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
  // A trie with the children of a node in a linked list; node 0 is the root, whose children are in roots_.
  struct Node {
    std::uint8_t byte = 0;
    std::int32_t child = 0;    // 0: none
    std::int32_t sibling = 0;  // 0: none
    std::int32_t token = -1;   // index into tokens_
  };
  std::int32_t step(std::int32_t node, std::uint8_t byte) const;
  std::int32_t longest_at(std::string_view text, std::size_t position) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<std::int32_t, 256> roots_{};
};

}  // namespace foe
