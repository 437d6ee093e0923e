// A set of strings with a value each, in which the beginnings of a text are found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/pair_table.h"

namespace foe {

class Trie {
 public:
  struct Match {
    std::size_t size = 0;  // in bytes
    std::int32_t value = -1;
  };

  // `key` has at least one byte, and `value` is not negative. If a key is inserted again, its last value counts. Throws
  // Error if the keys become too large together.
  void insert(std::string_view key, std::int32_t value);
  bool empty() const { return values_.size() == 1; }
  // Returns the value of `key`, or -1.
  std::int32_t find(std::string_view key) const;
  // Returns the longest key that `text` begins with; its value is -1 if there is none.
  Match longest_prefix(std::string_view text) const;

  // Calls `found` with each key that `text` begins with, the shortest first.
  template <typename Found>
  void for_each_prefix(std::string_view text, const Found& found) const {
    std::int32_t node = 0;
    for (std::size_t i = 0; i < text.size() && (node = step(node, text[i])) > 0; ++i)
      if (const std::int32_t value = values_[static_cast<std::size_t>(node)]; value >= 0) found(Match{i + 1, value});
  }

 private:
  // Returns the child of a node, or 0.
  std::int32_t step(std::int32_t node, char byte) const {
    const std::int32_t* child = children_.find(node, static_cast<std::uint8_t>(byte));
    return child ? *child : 0;
  }

  PairTable<std::int32_t> children_;         // by node and byte; 0 is the root
  std::vector<std::int32_t> values_ = {-1};  // by node; -1: no key ends here
};

}  // namespace foe
