#include "tokenizer/trie.h"

#include "base/check.h"
#include "base/error.h"

namespace foe {
namespace {

constexpr std::size_t kMaxNodes = std::size_t{1} << 23;  // real vocabularies have about a million

}  // namespace

void Trie::insert(std::string_view key, std::int32_t value) {
  FOE_CHECK(!key.empty() && value >= 0, "a key of {} bytes with the value {}", key.size(), value);
  std::int32_t node = 0;
  for (const char byte : key) {
    std::int32_t next = step(node, byte);
    if (next == 0) {
      if (values_.size() == kMaxNodes) fail("expected tokens of at most {} bytes in all, got more", kMaxNodes);
      next = static_cast<std::int32_t>(values_.size());
      children_.insert(node, static_cast<std::uint8_t>(byte), next);
      values_.push_back(-1);
    }
    node = next;
  }
  values_[static_cast<std::size_t>(node)] = value;
}

std::int32_t Trie::find(std::string_view key) const {
  std::int32_t node = 0;
  for (const char byte : key)
    if ((node = step(node, byte)) == 0) return -1;
  return values_[static_cast<std::size_t>(node)];
}

Trie::Match Trie::longest_prefix(std::string_view text) const {
  Match longest;
  for_each_prefix(text, [&](Match match) { longest = match; });
  return longest;
}

}  // namespace foe
