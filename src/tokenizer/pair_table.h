// Maps pairs of numbers to values: a hash table with open addressing.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace foe {

// Neither number of a pair is negative.
template <typename Value>
class PairTable {
 public:
  explicit PairTable(std::size_t expected = 0) : slots_(std::bit_ceil(2 * expected + 2)) {}

  // If a pair is inserted again, its last value counts. Pointers from find() become invalid.
  void insert(std::int32_t left, std::int32_t right, Value value) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    put(key_of(left, right), std::move(value));
  }

  // Returns null if the pair is not there.
  const Value* find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = slot_of(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return &slots_[i].value;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // no pair: they are not negative
  struct Slot {
    std::uint64_t key = kEmpty;
    Value value{};
  };

  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const {
    // Fibonacci hashing: the upper bits of the product depend on all of the key.
    return static_cast<std::size_t>(key * 0x9e3779b97f4a7c15ull >> 32) & (slots_.size() - 1);
  }
  void put(std::uint64_t key, Value value) {
    std::size_t i = slot_of(key);
    while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & (slots_.size() - 1);
    used_ += slots_[i].key == kEmpty;
    slots_[i] = {key, std::move(value)};
  }
  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    used_ = 0;
    for (Slot& slot : old)
      if (slot.key != kEmpty) put(slot.key, std::move(slot.value));
  }

  std::vector<Slot> slots_;  // a power of two
  std::size_t used_ = 0;
};

}  // namespace foe
