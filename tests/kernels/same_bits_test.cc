// The same bits on every kind of processor: other tests compare the instruction sets of one machine with each other.
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "each_target.h"
#include "kernels/products/gemm.h"
#include "kernels/rows/rows.h"
#include "numerics.h"

namespace foe {
namespace {

// From integers only: the logarithm of random_normal() is the C library's.
std::vector<float> uniform_values(std::size_t count, std::uint64_t seed) {
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) x[i] = static_cast<float>(random_unit(seed, i) - 0.5);
  return x;
}

std::uint64_t digest(const std::vector<float>& x) {
  std::uint64_t all = 0;
  for (const float value : x) all = mix64(all + std::bit_cast<std::uint32_t>(value));
  return all;
}

std::uint64_t digest_of_product(WeightFormat format) {
  constexpr int kCount = 7, kWidth = 40, kDepth = 200;
  const Weights weights(uniform_values(kWidth * kDepth, 1), kWidth, kDepth, DType::kF32);
  const PackedMatrix w = pack(one_thread(), {&weights.matrix, 1}, format);
  const std::vector<float> x = uniform_values(kCount * kDepth, 2);
  AlignedBuffer<std::byte> codes(kCount * quantised_row_bytes(format, kDepth));
  const QuantisedRows quantised_x{codes.data(), quantised_row_bytes(format, kDepth)};
  if (rounds_rows(format)) quantise_rows(one_thread(), format, x.data(), kDepth, kCount, kDepth, quantised_x);
  std::vector<float> y(kCount * kWidth);
  const Product product{x.data(), kDepth, nullptr, kCount, &w, y.data(), kWidth, nullptr, quantised_x};
  multiply(one_thread(), {&product, 1});
  return digest(y);
}

TEST(SameBits, Products) {
  for_each_target_of_codes([] {
    EXPECT_EQ(digest_of_product(WeightFormat::kF32), 0xcbc2f36ee3d642deu);
    EXPECT_EQ(digest_of_product(WeightFormat::kBF16), 0xf1426c83c499a0c4u);
    EXPECT_EQ(digest_of_product(WeightFormat::kBF16xBF16), 0x874aaee195bb1bccu);
    EXPECT_EQ(digest_of_product(WeightFormat::kInt8), 0xfd2247424e978a12u);
    EXPECT_EQ(digest_of_product(WeightFormat::kInt4), 0x1d55b91ad51844e3u);
  });
}

TEST(SameBits, Rows) {
  constexpr int kWidth = 1000;
  const std::vector<float> x = uniform_values(kWidth, 3), weight = uniform_values(kWidth, 4);
  for_each_target([&] {
    std::vector<float> y(kWidth);
    rms_norm(one_thread(),
             {.x = x.data(), .weight = weight.data(), .y = y.data(), .rows = 1, .n = kWidth, .eps = 1e-5f});
    EXPECT_EQ(digest(y), 0xcf3158e46cbd3821u);
    softmax(x.data(), kWidth, y.data());
    EXPECT_EQ(digest(y), 0x7647920b7da89b6fu);
  });
}

}  // namespace
}  // namespace foe
