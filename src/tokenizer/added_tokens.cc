#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"
#include "tokenizer/tokenizer_spec.h"

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

AddedTokenList::AddedTokenList(const std::vector<VocabEntry>& vocab, std::vector<AddedToken> added)
    : tokens_(std::move(added)), next_id_(static_cast<std::int32_t>(vocab.size())) {
  for (const VocabEntry& entry : vocab) vocab_.insert_or_assign(entry.name, entry.id);
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    index_.emplace(tokens_[i].content, i);
    next_id_ = std::max(next_id_, tokens_[i].id + 1);
  }
}

std::int32_t AddedTokenList::add(AddedToken token) {
  if (const auto known = index_.find(token.content); known != index_.end()) {
    AddedToken& old = tokens_[known->second];
    token.id = old.id;
    token.special = token.special || old.special;
    old = std::move(token);
    return old.id;
  }
  const auto in_vocab = vocab_.find(token.content);
  token.id = in_vocab != vocab_.end() ? in_vocab->second : next_id_++;
  index_.emplace(token.content, tokens_.size());
  tokens_.push_back(std::move(token));
  return tokens_.back().id;
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (const std::int32_t other = trie_.find(tokens_[i].content); other >= 0) {
      fail("added_tokens: '{}' has two ids, {} and {}", tokens_[i].content, tokens_[static_cast<std::size_t>(other)].id,
           tokens_[i].id);
    }
    trie_.insert(tokens_[i].content, static_cast<std::int32_t>(i));
  }
}

void AddedTokenMatcher::split(std::string_view input, bool parse_special,
                              const std::function<void(std::int32_t)>& token,
                              const std::function<void(std::string_view)>& text) const {
  std::size_t done = 0;  // everything before it has been reported
  // The last run of spaces that was looked at. Tokens that consist of spaces may be in it; without this, each would
  // scan it again.
  std::size_t spaces_begin = 0, spaces_end = 0;
  for (std::size_t at = 0; at < input.size();) {
    const std::int32_t found = trie_.longest_prefix(input.substr(at)).value;
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
