// A 64-bit digest of bytes, which shows that two sets of bytes differ or that one has been damaged. It is not
// cryptographic: two texts with the same digest can be made on purpose.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace foe {

// XXH64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md) with seed 0. The digest is the same on any processor.
class Digest {
 public:
  // Appends bytes to those whose digest value() returns. It does not matter in how many pieces they are added.
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  std::uint64_t value() const;

 private:
  static constexpr std::size_t kStripe = 32;
  void take_stripe(const std::byte* stripe);

  std::array<std::uint64_t, 4> lanes_ = {0x60ea27eeadc0b5d6, 0xc2b2ae3d27d4eb4f, 0, 0x61c8864e7a143579};
  std::array<std::byte, kStripe> rest_;  // the bytes behind the last whole stripe
  std::uint64_t size_ = 0;
};

}  // namespace foe
