#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace foe {
namespace {

// Returns where the character before `end` begins.
std::size_t previous(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && (static_cast<std::uint8_t>(text[end]) & 0xc0) == 0x80);
  return end;
}

bool inside_word(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin > 0 && is_word(read_utf8(text, previous(text, begin)).code)) ||
         (end < text.size() && is_word(read_utf8(text, end).code));
}

std::size_t spaces_before(std::string_view text, std::size_t begin, std::size_t limit) {
  while (begin > limit) {
    const std::size_t at = previous(text, begin);
    if (!is_space(read_utf8(text, at).code)) break;
    begin = at;
  }
  return std::max(begin, limit);
}

std::size_t spaces_after(std::string_view text, std::size_t end) {
  while (end < text.size()) {
    const Utf8Step step = read_utf8(text, end);
    if (!is_space(step.code)) break;
    end += step.size;
  }
  return end;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), nodes_(1) {
  for (std::size_t t = 0; t < tokens_.size(); ++t) {
    std::int32_t node = 0;
    for (const char c : tokens_[t].content) {
      const auto byte = static_cast<std::uint8_t>(c);
      std::int32_t next = step(node, byte);
      if (next == 0) {
        next = static_cast<std::int32_t>(nodes_.size());
        std::int32_t& first = node == 0 ? roots_[byte] : nodes_[static_cast<std::size_t>(node)].child;
        const std::int32_t sibling = std::exchange(first, next);
        nodes_.push_back({byte, 0, sibling, -1});
      }
      node = next;
    }
    std::int32_t& token = nodes_[static_cast<std::size_t>(node)].token;
    if (token >= 0) {
      fail("added_tokens: '{}' has two ids, {} and {}", tokens_[t].content, tokens_[static_cast<std::size_t>(token)].id,
           tokens_[t].id);
    }
    token = static_cast<std::int32_t>(t);
  }
}

std::int32_t AddedTokenMatcher::step(std::int32_t node, std::uint8_t byte) const {
  if (node == 0) return roots_[byte];
  std::int32_t child = nodes_[static_cast<std::size_t>(node)].child;
  while (child != 0 && nodes_[static_cast<std::size_t>(child)].byte != byte) {
    child = nodes_[static_cast<std::size_t>(child)].sibling;
  }
  return child;
}

std::int32_t AddedTokenMatcher::longest_at(std::string_view text, std::size_t position) const {
  std::int32_t found = -1;
  for (std::int32_t node = 0; position < text.size(); ++position) {
    node = step(node, static_cast<std::uint8_t>(text[position]));
    if (node == 0) break;
    if (nodes_[static_cast<std::size_t>(node)].token >= 0) found = nodes_[static_cast<std::size_t>(node)].token;
  }
  return found;
}

void AddedTokenMatcher::split(std::string_view input, bool parse_special,
                              const std::function<void(std::int32_t)>& token,
                              const std::function<void(std::string_view)>& text) const {
  std::size_t done = 0;  // everything before it has been reported
  // The last run of spaces that was looked at. Tokens that consist of spaces may be in it; without this, each would
  // scan it again.
  std::size_t spaces_begin = 0, spaces_end = 0;
  for (std::size_t at = 0; at < input.size();) {
    const std::int32_t found = longest_at(input, at);
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& match = tokens_[static_cast<std::size_t>(found)];
    std::size_t begin = at, end = at + match.content.size();
    at = end;
    if (match.special && !parse_special) continue;
    if (match.single_word && inside_word(input, begin, end)) continue;
    if (match.lstrip) begin = spaces_before(input, begin, std::min(done, begin));
    if (match.rstrip) {
      if (end < spaces_begin || end > spaces_end) {
        spaces_begin = end;
        spaces_end = spaces_after(input, end);
      }
      end = spaces_end;
    }
    if (done < begin) text(input.substr(done, begin - done));
    token(match.id);
    done = end;
  }
  if (done < input.size()) text(input.substr(done));
}

}  // namespace foe
