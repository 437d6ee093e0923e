#include "grammar/token_table.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "base/error.h"

namespace foe {

TokenTable::TokenTable(const Tokenizer& tokenizer, int vocab_size)
    : tokenizer_(tokenizer), mask_words_((static_cast<std::size_t>(std::max(vocab_size, 0)) + 63) / 64) {
  bytes_.resize(static_cast<std::size_t>(std::max(0, std::min(vocab_size, tokenizer_.vocab_size()))));
  for (std::size_t id = 0; id < bytes_.size(); ++id) {
    const auto token = static_cast<std::int32_t>(id);
    if (tokenizer_.is_special(token)) continue;
    bytes_[id] = tokenizer_.token_bytes(token);
    if (!bytes_[id].empty()) tokens_.push_back(token);
    longest_ = std::max(longest_, bytes_[id].size());
  }
  if (longest_ > std::numeric_limits<std::uint16_t>::max()) {
    fail("tokenizer: expected tokens of at most 65535 bytes, got {}", longest_);
  }
  std::sort(tokens_.begin(), tokens_.end(),
            [&](std::int32_t a, std::int32_t b) { return std::pair(bytes(a), a) < std::pair(bytes(b), b); });

  nodes_.emplace_back();
  std::vector<std::uint32_t> open = {0};  // the nodes from the root to the last one
  const auto close = [&](std::size_t depth) {
    for (; open.size() > depth + 1; open.pop_back())
      nodes_[open.back()].end = static_cast<std::uint32_t>(nodes_.size());
  };
  std::string_view last;
  for (std::uint32_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view now = bytes(tokens_[i]);
    const auto common =
        static_cast<std::size_t>(std::mismatch(last.begin(), last.end(), now.begin(), now.end()).first - last.begin());
    close(common);
    for (std::size_t depth = common + 1; depth <= now.size(); ++depth) {
      open.push_back(static_cast<std::uint32_t>(nodes_.size()));
      nodes_.push_back({0, i, static_cast<std::uint16_t>(depth), static_cast<std::uint8_t>(now[depth - 1])});
    }
    last = now;
  }
  close(0);
  nodes_[0].end = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back({0, static_cast<std::uint32_t>(tokens_.size()), 0, 0});
}

std::string_view TokenTable::bytes(std::int32_t token) const {
  return token >= 0 && static_cast<std::size_t>(token) < bytes_.size() ? bytes_[static_cast<std::size_t>(token)]
                                                                       : std::string_view();
}

std::string_view TokenTable::path(std::uint32_t node) const {
  // The first token at or below the node begins with its bytes.
  return nodes_[node].depth == 0 ? std::string_view()
                                 : bytes(tokens_[nodes_[node].first_token]).substr(0, nodes_[node].depth);
}

}  // namespace foe
