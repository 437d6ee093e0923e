// SHA-256 (FIPS 180-4): a digest for which nobody knows two texts that share it, so that it can stand for a text. The
// digest in digest.h is faster where nobody cheats.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace foe {

class Sha256 {
 public:
  // `plainly`: without the processor's own instructions, for tests.
  explicit Sha256(bool plainly = false) : plainly_(plainly) {}
  // Appends bytes to those whose digest hex() returns. It does not matter in how many pieces they are added.
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  // Returns the digest as 64 hexadecimal digits in lower case.
  std::string hex() const;

 private:
  static constexpr std::size_t kBlock = 64;

  bool plainly_;
  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, kBlock> rest_;  // the bytes behind the last whole block
  std::uint64_t size_ = 0;
};

// Returns the digest of a text, or of bytes.
std::string sha256(std::string_view text);
std::string sha256(std::span<const std::byte> bytes);

}  // namespace foe
