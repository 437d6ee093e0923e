#include "kernels/formats/wire_format.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "each_target.h"
#include "numerics.h"

namespace foe {
namespace {

constexpr Wire kWires[] = {Wire::kF32, Wire::kBF16, Wire::kInt8};
constexpr std::size_t kLengths[] = {0, 1, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kSmallest = std::numeric_limits<float>::min();

using Bytes = std::vector<std::byte>;

// Neither end is aligned, and nothing past the end is touched.
Bytes encoded(Wire wire, const std::vector<float>& x) {
  Bytes bytes(wire_bytes(wire, x.size()) + 2, std::byte{77});
  encode(wire, x.data(), x.size(), bytes.data() + 1);
  EXPECT_EQ(bytes.front(), std::byte{77});
  EXPECT_EQ(bytes.back(), std::byte{77}) << "wrote past the end";
  return {bytes.begin() + 1, bytes.end() - 1};
}

std::vector<float> decoded(Wire wire, const Bytes& bytes, std::size_t n) {
  Bytes moved(bytes.size() + 1);
  std::copy(bytes.begin(), bytes.end(), moved.begin() + 1);
  std::vector<float> x(n + 1, -7.0f);
  decode(wire, moved.data() + 1, n, x.data());
  EXPECT_EQ(x.back(), -7.0f) << "wrote past the end";
  x.pop_back();
  return x;
}

std::vector<float> sent(Wire wire, const std::vector<float>& x) {
  return decoded(wire, encoded(wire, x), x.size());
}

// Of either sign and of sizes from 2^-140 to 2^100: blocks of one size, and blocks that mix them.
std::vector<float> values_of_all_sizes(std::size_t n, std::uint64_t seed) {
  std::vector<float> x = random_values(n, seed);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t r = random_bits(seed, i / 64 % 2 ? i : i / 64);
    x[i] = std::ldexp(x[i], static_cast<int>(r % 241) - 140);
  }
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

TEST(Wire, HasNames) {
  for (const Wire wire : kWires) EXPECT_EQ(parse_wire(to_string(wire)), wire);
  EXPECT_STREQ(to_string(Wire::kBF16), "bf16");
  try {
    parse_wire("fp8");
    FAIL() << "parsed";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "expected f32, bf16 or int8 as the wire format, got 'fp8'");
  }
}

TEST(Wire, CountsBytes) {
  EXPECT_EQ(wire_bytes(Wire::kF32, 65), 260u);
  EXPECT_EQ(wire_bytes(Wire::kBF16, 65), 130u);
  EXPECT_EQ(wire_bytes(Wire::kInt8, 0), 0u);
  EXPECT_EQ(wire_bytes(Wire::kInt8, 64), 68u);
  EXPECT_EQ(wire_bytes(Wire::kInt8, 65), 73u);
}

TEST(Wire, F32KeepsTheBits) {
  std::vector<float> x = values_of_all_sizes(1000, 1);
  x.insert(x.end(), {0.0f, -0.0f, kInfinity, -kInfinity, kNaN, std::bit_cast<float>(0x7fa12345u)});
  EXPECT_TRUE(same_bits(sent(Wire::kF32, x), x));
}

TEST(Wire, BF16RoundsToNearestEven) {
  for (const std::size_t n : kLengths) {
    std::vector<float> x = values_of_all_sizes(n, n);
    // Halfway between two neighbours, every other time.
    for (std::size_t i = 0; i < n; i += 2)
      x[i] = std::bit_cast<float>((std::bit_cast<std::uint32_t>(x[i]) & 0xffff0000u) | 0x8000u);
    for_each_target([&] {
      const auto y = sent(Wire::kBF16, x);
      for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(y[i], to_float(to_bf16(x[i]))) << x[i];
    });
  }
}

TEST(Wire, BF16KeepsWhatIsNotFinite) {
  std::vector<float> x(40, 1.5f);
  x[0] = kInfinity, x[1] = -kInfinity, x[2] = kNaN, x[3] = std::bit_cast<float>(0x7f800001u), x[4] = kLargest;
  x[35] = kInfinity, x[36] = std::bit_cast<float>(0xff800001u), x[37] = -0.0f;
  for_each_target([&] {
    const auto y = sent(Wire::kBF16, x);
    for (const int i : {0, 1, 35}) EXPECT_EQ(y[i], x[i]);
    for (const int i : {2, 3, 36}) EXPECT_TRUE(std::isnan(y[i])) << i;
    EXPECT_EQ(y[4], kInfinity);  // nearer than bf16's largest
    EXPECT_TRUE(y[37] == 0 && std::signbit(y[37]));
    EXPECT_EQ(y[5], 1.5f);
  });
}

// The scale s is the largest magnitude / 127 within 3 u (the constant and a product), or the smallest normal float. A
// float over s, at most 127 within those, is off by two roundings (the inverse and a product) before it is rounded to
// an integer; the integer times s is rounded once more.
TEST(Wire, Int8IsWithinHalfAScale) {
  for (const std::size_t n : kLengths) {
    const auto x = values_of_all_sizes(n, n);
    std::vector<double> bound(n);
    for (std::size_t i = 0; i < n; ++i) {
      double largest = 0;
      for (std::size_t j = i / 64 * 64; j < std::min(n, i / 64 * 64 + 64); ++j)
        largest = std::max(largest, std::abs(static_cast<double>(x[j])));
      const double scale = std::max(largest / 127, static_cast<double>(kSmallest));
      bound[i] = scale * (0.5 + 127 * gamma(3 + 2)) + gamma(1) * std::abs(x[i]);
    }
    for_each_target([&] {
      const auto y = sent(Wire::kInt8, x);
      for (std::size_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i], bound[i]) << i << " of " << n;
    });
  }
}

TEST(Wire, Int8RoundsToNearestEvenMultiples) {
  // The largest makes the scale 2 within a few roundings: integers are halfway between multiples of it or on them, so a
  // scale of exactly 2 is made of a block whose largest the constant divides to it.
  std::vector<float> x(64, 0.0f);
  for (float largest = 253.9f; largest < 254.1f; largest = std::nextafter(largest, kInfinity)) {
    x[0] = largest;
    float scale;
    std::memcpy(&scale, encoded(Wire::kInt8, x).data(), sizeof scale);
    if (scale == 2.0f) break;
  }
  x[1] = 1, x[2] = 3, x[3] = 5, x[4] = -1, x[5] = -3, x[6] = 253, x[7] = 4;
  for_each_target([&] {
    const auto y = sent(Wire::kInt8, x);
    EXPECT_EQ(std::vector<float>(y.begin(), y.begin() + 8), (std::vector<float>{254, 0, 4, 4, 0, -4, 252, 4}));
  });
}

TEST(Wire, Int8KeepsZerosAndStaysFinite) {
  for_each_target([&] {
    const std::vector<float> zeros(100, 0.0f);
    EXPECT_TRUE(same_bits(sent(Wire::kInt8, zeros), zeros));
    for (const float largest : {kLargest, -kLargest, 1.0f, kSmallest, std::numeric_limits<float>::denorm_min()}) {
      std::vector<float> x(70, 0.0f);
      x[3] = largest, x[69] = largest;
      const auto y = sent(Wire::kInt8, x);
      EXPECT_EQ(y[4], 0.0f);
      for (const int i : {3, 69}) {
        EXPECT_TRUE(std::isfinite(y[i])) << largest;
        EXPECT_LE(std::abs(y[i]), std::abs(largest));
        EXPECT_NEAR(y[i], largest, std::max(std::abs(largest) * gamma(4), kSmallest / 2.0));
      }
    }
  });
}

// A block with a float that is not finite becomes NaNs, and no other does.
TEST(Wire, Int8DoesNotHideWhatIsNotFinite) {
  for (const float value : {kInfinity, -kInfinity, kNaN, -kNaN})
    for (const std::size_t at : {64, 100, 127, 128, 139}) {
      std::vector<float> x = random_values(140, 1);
      x[at] = value;
      for_each_target([&] {
        const auto y = sent(Wire::kInt8, x);
        for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(std::isnan(y[i]), i / 64 == at / 64) << i;
      });
    }
}

// Cut before a multiple of a block, both parts are vectors of their own: slices of a sum rely on it.
TEST(Wire, PartsAreVectors) {
  const auto x = values_of_all_sizes(500, 3);
  for (const Wire wire : kWires)
    for (std::size_t cut = 0; cut < x.size(); cut += kWireBlock) {
      Bytes parts = encoded(wire, {x.begin(), x.begin() + static_cast<std::ptrdiff_t>(cut)});
      EXPECT_EQ(parts.size(), wire_bytes(wire, cut));
      const Bytes rest = encoded(wire, {x.begin() + static_cast<std::ptrdiff_t>(cut), x.end()});
      parts.insert(parts.end(), rest.begin(), rest.end());
      EXPECT_EQ(parts, encoded(wire, x)) << to_string(wire) << " cut at " << cut;
    }
}

TEST(Wire, WhatWasRoundedToBF16IsNotRoundedAgain) {
  const auto once = sent(Wire::kBF16, values_of_all_sizes(1000, 4));
  EXPECT_TRUE(same_bits(sent(Wire::kBF16, once), once));
}

TEST(Wire, BitsAreThoseOfEveryTarget) {
  std::vector<float> x = values_of_all_sizes(1000, 5);
  x[70] = kNaN, x[300] = kInfinity;
  for (const Wire wire : kWires) {
    Bytes first;
    std::vector<float> first_back;
    for_each_target([&] {
      const Bytes bytes = encoded(wire, x);
      const auto back = decoded(wire, bytes, x.size());
      if (first.empty()) first = bytes, first_back = back;
      EXPECT_EQ(bytes, first);
      EXPECT_TRUE(same_bits(back, first_back));
    });
  }
}

}  // namespace
}  // namespace foe
