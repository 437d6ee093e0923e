#include "tokenizer/bpe.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <span>
#include <string>

#include "base/check.h"
#include "text/utf8.h"

namespace foe {
namespace {

// Cuts a word into symbols, whose ids it appends.
class SymbolWriter {
 public:
  SymbolWriter(const Bpe& bpe, std::vector<std::int32_t>& ids) : bpe_(bpe), ids_(ids) {}

  void write_bytes(std::string_view word) {
    for (const char c : word) write(bpe_.byte_ids[static_cast<std::uint8_t>(c)]);
    end_unknown();
  }

  void write_characters(std::string_view word) {
    for (std::size_t i = 0; i < word.size();) {
      if (const Trie::Match match = bpe_.whole.longest_prefix(word.substr(i)); match.value >= 0) {
        write(match.value);
        i += match.size;
        continue;
      }
      const Utf8Step step = read_utf8(word, i);
      const auto found = bpe_.character_ids.find(step.code);
      if (found != bpe_.character_ids.end()) {
        write(found->second);
      } else {
        write_unknown(word.substr(i, step.size));
      }
      i += step.size;
    }
    end_unknown();
  }

  void write_unknown(std::string_view bytes) {
    const auto id_of = [&](char c) { return bpe_.byte_ids[static_cast<std::uint8_t>(c)]; };
    if (std::none_of(bytes.begin(), bytes.end(), [&](char c) { return id_of(c) < 0; })) {
      // The unknown symbols before it are written after it: this is what the `tokenizers` library does.
      for (const char c : bytes) ids_.push_back(id_of(c));
    } else {
      write(-1);
    }
  }

  // Writes a symbol, or an unknown one if `id` is -1.
  void write(std::int32_t id) {
    if (id >= 0) {
      end_unknown();
      ids_.push_back(id);
    } else if (bpe_.unknown_id >= 0) {
      if (!bpe_.fuse_unknown) end_unknown();
      unknown_ = true;
    }
  }

  void end_unknown() {
    if (unknown_) ids_.push_back(bpe_.unknown_id);
    unknown_ = false;
  }

 private:
  const Bpe& bpe_;
  std::vector<std::int32_t>& ids_;
  bool unknown_ = false;  // an unknown symbol has not been written yet
};

// Words up to this length are merged by scanning an array: for them quadratic time is less than that of a heap.
constexpr std::size_t kShortWord = 48;
constexpr BpeMerge kNoMerge{std::numeric_limits<std::uint32_t>::max(), -1};

// Both merge `ids` in place, and return how many remain.

std::size_t merge_short(const MergeTable& merges, std::span<std::int32_t> ids) {
  std::array<BpeMerge, kShortWord> next;  // the merge of each symbol with the one to its right
  std::size_t size = ids.size();
  const auto look_up = [&](std::size_t i) {
    const BpeMerge* merge = i + 1 < size ? merges.find(ids[i], ids[i + 1]) : nullptr;
    next[i] = merge ? *merge : kNoMerge;
  };
  for (std::size_t i = 0; i < size; ++i) look_up(i);
  while (size >= 2) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < size; ++i) {
      if (next[i].rank < next[best].rank) best = i;
    }
    if (next[best].rank == kNoMerge.rank) break;
    ids[best] = next[best].result;
    --size;
    for (std::size_t i = best + 1; i < size; ++i) {
      ids[i] = ids[i + 1];
      next[i] = next[i + 1];
    }
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  return size;
}

// A linked list of symbols and a heap of possible merges; an entry is stale when either of its symbols has changed.
std::size_t merge_long(const MergeTable& merges, std::span<std::int32_t> ids) {
  struct Symbol {
    std::int32_t id, previous, next;  // id -1: merged into another; previous or next -1: none
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position, left, right, result;
    bool operator<(const Candidate& other) const {  // std::priority_queue puts the largest first
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto size = static_cast<std::int32_t>(ids.size());
  std::vector<Symbol> symbols(ids.size());
  const auto at = [&](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
  for (std::int32_t i = 0; i < size; ++i) at(i) = {ids[static_cast<std::size_t>(i)], i - 1, i + 1};
  at(size - 1).next = -1;
  std::priority_queue<Candidate> heap;
  const auto consider = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return;
    if (const BpeMerge* merge = merges.find(at(left).id, at(right).id)) {
      heap.push({merge->rank, left, at(left).id, at(right).id, merge->result});
    }
  };
  for (std::int32_t i = 0; i + 1 < size; ++i) consider(i, i + 1);
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Symbol& left = at(top.position);
    if (left.id != top.left || left.next < 0 || at(left.next).id != top.right) continue;
    Symbol& right = at(left.next);
    left.id = top.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) at(left.next).previous = top.position;
    consider(left.previous, top.position);
    consider(top.position, left.next);
  }
  std::size_t merged = 0;
  for (std::int32_t i = 0; i >= 0; i = at(i).next) ids[merged++] = at(i).id;
  return merged;
}

// Replaces the characters that have remained parts of nothing, from index `begin` on.
void replace_parts(const Bpe& bpe, std::size_t begin, std::vector<std::int32_t>& ids) {
  const auto is_part = [&](std::int32_t id) { return id >= bpe.first_part; };
  const auto first = ids.begin() + static_cast<std::ptrdiff_t>(begin);
  if (bpe.parts.empty() || std::none_of(first, ids.end(), is_part)) return;
  const std::vector<std::int32_t> merged(first, ids.end());
  ids.resize(begin);
  SymbolWriter writer(bpe, ids);
  for (const std::int32_t id : merged) {
    if (is_part(id)) {
      std::string character;
      append_utf8(character, bpe.parts[static_cast<std::size_t>(id - bpe.first_part)]);
      writer.write_unknown(character);
    } else {
      writer.write(id == bpe.unknown_id ? -1 : id);
    }
  }
  writer.end_unknown();
}

}  // namespace

void encode_word(const Bpe& bpe, std::string_view word, std::vector<std::int32_t>& ids) {
  FOE_CHECK(word.size() <= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()), "{}", word.size());
  const std::size_t begin = ids.size();
  SymbolWriter writer(bpe, ids);
  bpe.symbols_are_bytes ? writer.write_bytes(word) : writer.write_characters(word);
  const std::span<std::int32_t> symbols = std::span(ids).subspan(begin);
  if (symbols.size() < 2) return replace_parts(bpe, begin, ids);
  ids.resize(begin + (symbols.size() <= kShortWord ? merge_short : merge_long)(bpe.merges, symbols));
  replace_parts(bpe, begin, ids);
}

}  // namespace foe
