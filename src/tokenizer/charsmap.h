// SentencePiece's table of normalised characters: a map from short texts to others, compiled into one string of bytes.
// https://github.com/google/sentencepiece/blob/master/doc/normalization.md
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Immutable; any thread may use it.
class Charsmap {
 public:
  struct Rule {
    std::size_t size = 0;   // how many bytes of the text it replaces
    std::string_view text;  // by these, which are valid UTF-8
  };

  // Reads `precompiled_charsmap`: the length of a double-array trie (four bytes, little endian), the trie, and the
  // texts, each with a NUL behind it. Throws Error if it is not that.
  explicit Charsmap(std::string_view compiled);

  // Return the rule for the shortest, or longest, beginning of `text` that has one.
  std::optional<Rule> shortest(std::string_view text) const { return find(text, false); }
  std::optional<Rule> longest(std::string_view text) const { return find(text, true); }

 private:
  std::optional<Rule> find(std::string_view text, bool longest) const;
  std::string_view text_at(std::uint32_t offset) const;

  std::vector<std::uint32_t> units_;  // the double array, in the form of Darts-clone
  std::string texts_;
};

}  // namespace foe
