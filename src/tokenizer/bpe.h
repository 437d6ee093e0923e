// Byte-pair encoding (Sennrich, Haddow, Birch 2016) over bytes. It repeatedly merges the pair of neighbours with the
// lowest rank, the leftmost if there are several.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace foe {

struct BpeMerge {
  std::uint32_t rank = 0;   // lower ranks merge first
  std::int32_t result = 0;  // id of the merged token
};

// Maps (left id, right id) to a BpeMerge: a hash table with open addressing, whose size is fixed when it is made.
class MergeTable {
 public:
  MergeTable() : MergeTable(0) {}
  explicit MergeTable(std::size_t max_merges);
  // If a pair is inserted again, the last merge counts.
  void insert(std::int32_t left, std::int32_t right, BpeMerge merge);
  // Returns null if the pair does not merge.
  const BpeMerge* find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = slot_of(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return &slots_[i].merge;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  struct Slot {
    std::uint64_t key = kEmpty;
    BpeMerge merge;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // no pair of ids: they are not negative
  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const {
    // Fibonacci hashing: the upper bits of the product depend on all of the key.
    return static_cast<std::size_t>(key * 0x9e3779b97f4a7c15ull >> 32) & mask_;
  }

  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
  std::size_t used_ = 0;
};

struct Bpe {
  std::array<std::int32_t, 256>
      byte_ids{};  // -1 for bytes that the vocabulary does not have, none of which occurs in valid UTF-8
  MergeTable merges;
};

// Appends the token ids of one word in O(n log n) time. All of its bytes, at most 2^31 - 1, must have an id.
void encode_word(const Bpe& bpe, std::string_view bytes, std::vector<std::int32_t>& ids);

}  // namespace foe
