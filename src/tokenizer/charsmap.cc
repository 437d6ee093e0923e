#include "tokenizer/charsmap.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace foe {
namespace {

constexpr std::size_t kMaxRuleBytes = 1024;  // of the text that a rule writes

std::uint32_t read_u32(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(bytes[at + i])) << 8 * i;
  return value;
}

// The fields of a unit of Darts-clone.
constexpr bool has_leaf(std::uint32_t unit) {
  return unit >> 8 & 1;
}
constexpr std::uint32_t value_of(std::uint32_t unit) {
  return unit & 0x7fffffff;
}
constexpr std::uint32_t label_of(std::uint32_t unit) {
  return unit & 0x800000ff;
}
constexpr std::uint32_t offset_of(std::uint32_t unit) {
  return unit >> 10 << (unit >> 6 & 8);
}

}  // namespace

Charsmap::Charsmap(std::string_view compiled) {
  const std::size_t trie_bytes = compiled.size() < 4 ? 0 : read_u32(compiled, 0);
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > compiled.size() - 4)
    fail("precompiled_charsmap: expected a trie of four bytes or more in {} bytes, got one of {}", compiled.size(),
         trie_bytes);
  for (std::size_t at = 4; at < 4 + trie_bytes; at += 4) units_.push_back(read_u32(compiled, at));
  texts_ = compiled.substr(4 + trie_bytes);
  check_utf8(texts_, "precompiled_charsmap: its texts");
}

std::optional<Charsmap::Rule> Charsmap::find(std::string_view text, bool longest) const {
  std::optional<Rule> rule;
  std::uint32_t node = offset_of(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label_of(units_[node]) != byte) break;
    const std::uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size()) break;
    rule = Rule{i + 1, text_at(value_of(units_[node]))};
    if (!longest) break;
  }
  return rule;
}

std::string_view Charsmap::text_at(std::uint32_t offset) const {
  if (offset > texts_.size() || (offset < texts_.size() && (static_cast<std::uint8_t>(texts_[offset]) & 0xc0) == 0x80))
    fail("precompiled_charsmap: expected the offset of a text in {} bytes, got {}", texts_.size(), offset);
  const std::string_view rest = std::string_view(texts_).substr(offset);
  const std::size_t size = std::min(rest.find('\0'), rest.size());
  if (size > kMaxRuleBytes)
    fail("precompiled_charsmap: expected texts of at most {} bytes, got one of {}", kMaxRuleBytes, size);
  return rest.substr(0, size);
}

}  // namespace foe
