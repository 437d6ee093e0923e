#include "tokenizer/bpe.h"

#include <bit>
#include <limits>
#include <queue>

#include "base/check.h"

namespace foe {

MergeTable::MergeTable(std::size_t max_merges) : slots_(std::bit_ceil(2 * max_merges + 2)), mask_(slots_.size() - 1) {}

void MergeTable::insert(std::int32_t left, std::int32_t right, BpeMerge merge) {
  const std::uint64_t key = key_of(left, right);
  std::size_t i = slot_of(key);
  while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & mask_;
  if (slots_[i].key == kEmpty) ++used_;
  FOE_CHECK(used_ < slots_.size(), "{} merges in {} slots", used_, slots_.size());
  slots_[i] = {key, merge};
}

namespace {

// Words up to this length are merged by scanning an array: for them quadratic time is less than that of a heap.
constexpr std::size_t kShortWord = 48;
constexpr BpeMerge kNoMerge{std::numeric_limits<std::uint32_t>::max(), -1};

BpeMerge merge_of(const Bpe& bpe, std::int32_t left, std::int32_t right) {
  const BpeMerge* merge = bpe.merges.find(left, right);
  return merge ? *merge : kNoMerge;
}

void encode_short(const Bpe& bpe, std::string_view bytes, std::vector<std::int32_t>& ids) {
  struct Symbol {
    std::int32_t id;
    BpeMerge next;  // the merge with the symbol to the right
  };
  std::array<Symbol, kShortWord> symbols;
  std::size_t size = bytes.size();
  for (std::size_t i = 0; i < size; ++i) symbols[i] = {bpe.byte_ids[static_cast<std::uint8_t>(bytes[i])], kNoMerge};
  for (std::size_t i = 0; i + 1 < size; ++i) symbols[i].next = merge_of(bpe, symbols[i].id, symbols[i + 1].id);
  while (true) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < size; ++i) {
      if (symbols[i].next.rank < symbols[best].next.rank) best = i;
    }
    if (size < 2 || symbols[best].next.rank == kNoMerge.rank) break;
    symbols[best].id = symbols[best].next.result;
    --size;
    for (std::size_t i = best + 1; i < size; ++i) symbols[i] = symbols[i + 1];
    symbols[best].next = best + 1 < size ? merge_of(bpe, symbols[best].id, symbols[best + 1].id) : kNoMerge;
    if (best > 0) symbols[best - 1].next = merge_of(bpe, symbols[best - 1].id, symbols[best].id);
  }
  for (std::size_t i = 0; i < size; ++i) ids.push_back(symbols[i].id);
}

// A linked list of symbols and a heap of possible merges; an entry is stale when either of its symbols has changed.
void encode_long(const Bpe& bpe, std::string_view bytes, std::vector<std::int32_t>& ids) {
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
  const auto size = static_cast<std::int32_t>(bytes.size());
  std::vector<Symbol> symbols(bytes.size());
  const auto at = [&](std::int32_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
  for (std::int32_t i = 0; i < size; ++i) {
    at(i) = {bpe.byte_ids[static_cast<std::uint8_t>(bytes[static_cast<std::size_t>(i)])], i - 1, i + 1};
  }
  at(size - 1).next = -1;
  std::priority_queue<Candidate> heap;
  const auto consider = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return;
    if (const BpeMerge* merge = bpe.merges.find(at(left).id, at(right).id)) {
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
  for (std::int32_t i = 0; i >= 0; i = at(i).next) ids.push_back(at(i).id);
}

}  // namespace

void encode_word(const Bpe& bpe, std::string_view bytes, std::vector<std::int32_t>& ids) {
  FOE_CHECK(bytes.size() <= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()), "{}", bytes.size());
  if (bytes.empty()) return;
  if (bytes.size() <= kShortWord) {
    encode_short(bpe, bytes, ids);
  } else {
    encode_long(bpe, bytes, ids);
  }
}

}  // namespace foe
