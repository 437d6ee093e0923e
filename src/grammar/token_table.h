// The tokens of a vocabulary as a trie of their bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace foe {

// Immutable; any thread may use it. Special tokens, and ids without a token, have no bytes here and are not in the
// trie.
class TokenTable {
 public:
  // A node stands for the bytes on the way to it. Nodes are in preorder: those below node i are [i + 1, end).
  struct Node {
    std::uint32_t end = 0;
    std::uint32_t first_token = 0;  // where its own tokens begin in tokens_; they end where the next node's begin
    std::uint16_t depth = 0;        // the number of its bytes; 0: the root
    std::uint8_t byte = 0;          // the last of them
  };

  // Has the tokens with ids below `vocab_size`, the number of the model's logits. Throws Error if a token has 65,536
  // bytes or more.
  TokenTable(const Tokenizer& tokenizer, int vocab_size);

  std::size_t mask_words() const { return mask_words_; }  // words of 64 bits with one bit per id
  std::string_view bytes(std::int32_t token) const;       // empty for ids that are not in the table

  std::span<const Node> nodes() const { return {nodes_.data(), nodes_.size() - 1}; }
  std::span<const std::int32_t> tokens(std::uint32_t node) const {
    return std::span(tokens_).subspan(nodes_[node].first_token,
                                      nodes_[node + 1].first_token - nodes_[node].first_token);
  }
  std::string_view path(std::uint32_t node) const;  // the bytes of the node
  std::size_t longest() const { return longest_; }  // bytes of the longest token

  // Sets the bits of the node's tokens.
  void mark(std::uint32_t node, std::span<std::uint64_t> bits) const {
    for (const std::int32_t token : tokens(node)) {
      bits[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (token % 64);
    }
  }

 private:
  Tokenizer tokenizer_;  // owns the bytes
  std::size_t mask_words_;
  std::size_t longest_ = 0;
  std::vector<std::string_view> bytes_;  // by id
  std::vector<std::int32_t> tokens_;     // in the order of their bytes
  std::vector<Node> nodes_;              // and one more at the end, with the size of tokens_
};

}  // namespace foe
