#include "base/digest.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace foe {
namespace {

constexpr std::uint64_t kPrime1 = 0x9e3779b185ebca87, kPrime2 = 0xc2b2ae3d27d4eb4f, kPrime3 = 0x165667b19e3779f9,
                        kPrime4 = 0x85ebca77c2b2ae63, kPrime5 = 0x27d4eb2f165667c5;

template <typename Word>
std::uint64_t read(const std::byte* at) {
  static_assert(std::endian::native == std::endian::little);
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

std::uint64_t mix(std::uint64_t lane, std::uint64_t word) {
  return std::rotl(lane + word * kPrime2, 31) * kPrime1;
}

}  // namespace

void Digest::take_stripe(const std::byte* stripe) {
  for (std::size_t i = 0; i < lanes_.size(); ++i) lanes_[i] = mix(lanes_[i], read<std::uint64_t>(stripe + 8 * i));
}

void Digest::add(std::span<const std::byte> bytes) {
  const std::size_t waiting = size_ % kStripe;
  size_ += bytes.size();
  if (waiting > 0) {
    const auto first = bytes.first(std::min(bytes.size(), kStripe - waiting));
    std::copy(first.begin(), first.end(), rest_.begin() + static_cast<std::ptrdiff_t>(waiting));
    if (waiting + first.size() < kStripe) return;
    take_stripe(rest_.data());
    bytes = bytes.subspan(first.size());
  }
  for (; bytes.size() >= kStripe; bytes = bytes.subspan(kStripe)) take_stripe(bytes.data());
  std::copy(bytes.begin(), bytes.end(), rest_.begin());
}

std::uint64_t Digest::value() const {
  std::uint64_t h = kPrime5;
  if (size_ >= kStripe) {
    h = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) h = (h ^ mix(0, lane)) * kPrime1 + kPrime4;
  }
  h += size_;
  const std::byte* at = rest_.data();
  const std::byte* const end = at + size_ % kStripe;
  for (; end - at >= 8; at += 8) h = std::rotl(h ^ mix(0, read<std::uint64_t>(at)), 27) * kPrime1 + kPrime4;
  for (; end - at >= 4; at += 4) h = std::rotl(h ^ read<std::uint32_t>(at) * kPrime1, 23) * kPrime2 + kPrime3;
  for (; at < end; ++at) h = std::rotl(h ^ read<std::uint8_t>(at) * kPrime5, 11) * kPrime1;
  h = (h ^ h >> 33) * kPrime2;
  h = (h ^ h >> 29) * kPrime3;
  return h ^ h >> 32;
}

}  // namespace foe
