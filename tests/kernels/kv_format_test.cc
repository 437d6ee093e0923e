#include "kernels/formats/kv_format.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.h"
#include "each_target.h"
#include "numerics.h"

namespace foe {
namespace {

constexpr KvType kTypes[] = {KvType::kF32, KvType::kBF16, KvType::kInt8};
constexpr int kWidths[][2] = {{1, 1},     {3, 3},     {17, 17}, {64, 64},  {96, 96},
                              {100, 100}, {128, 128}, {17, 40}, {192, 128}};
const std::vector<std::int32_t> kBlocks = {2, 0, 3};
constexpr int kLength = 37;

using Bytes = std::vector<std::byte>;

struct Rows {
  std::vector<float> k_SmC, v_SmW;
  Rows(const KvShape& shape, std::uint64_t seed)
      : k_SmC(random_values(kLength * shape.kv_heads * shape.key_width, seed)),
        v_SmW(random_values(kLength * shape.kv_heads * shape.value_width, seed + 1)) {
    // Heads of different sizes, so that one's scale does not fit another.
    for (std::size_t i = 0; i < k_SmC.size(); ++i)
      k_SmC[i] = std::ldexp(k_SmC[i], static_cast<int>(i / shape.key_width % 7) - 3);
    for (std::size_t i = 0; i < v_SmW.size(); ++i)
      v_SmW[i] = std::ldexp(v_SmW[i], static_cast<int>(i / shape.value_width % 5) - 9);
  }
};

Bytes empty_cache(const KvShape& shape) {
  return Bytes(4 * shape.block_bytes(), std::byte{0xff});
}

// Positions [first, first + count).
void write(const KvShape& shape, const Rows& rows, int first, int count, Bytes& kv) {
  Batch batch;
  batch.add_sequence(std::vector<std::int32_t>(count), first, kBlocks, Batch::Sample::kNone);
  const int at = first * shape.kv_heads;
  ThreadPool pool(1);
  write_kv(pool, batch, shape, rows.k_SmC.data() + at * shape.key_width, rows.v_SmW.data() + at * shape.value_width,
           kv.data());
}

TEST(KvFormat, HasNames) {
  for (const KvType type : kTypes) EXPECT_EQ(parse_kv_type(to_string(type)), type);
  EXPECT_STREQ(to_string(KvType::kInt8), "int8");
  try {
    parse_kv_type("fp8");
    FAIL() << "parsed";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "expected f32, bf16 or int8 as the type of the KV cache, got 'fp8'");
  }
}

TEST(KvFormat, CountsBytes) {
  EXPECT_EQ(KvShape({8, 96, 96, KvType::kF32}).block_bytes(), 8u * 16 * 4 * (96 + 96));
  EXPECT_EQ(KvShape({8, 96, 96, KvType::kBF16}).block_bytes(), 8u * 16 * 2 * (96 + 96));
  EXPECT_EQ(KvShape({8, 96, 96, KvType::kInt8}).block_bytes(), 8u * 16 * (96 + 96 + 2 * 4));
  EXPECT_EQ(KvShape({1, 17, 17, KvType::kBF16}).block_bytes(), 16u * 2 * (18 + 32));
  EXPECT_EQ(KvShape({2, 192, 128, KvType::kInt8}).block_bytes(), 2u * 16 * (192 + 128 + 2 * 4));
  EXPECT_EQ(KvShape({1, 17, 33, KvType::kF32}).block_bytes(), 16u * 4 * (17 + 48));
}

// f32 stays; bf16 is the nearest number of 8 significant bits, within 2^-8 of the element; int8 is within half of the
// scale, which is a 127th of the largest magnitude, but for the roundings of a multiple of up to 127 (scale, inverse,
// product).
void check_row(KvType type, const float* x, const double* stored, int C) {
  double largest = 0;
  for (int c = 0; c < C; ++c) largest = std::max(largest, std::abs(static_cast<double>(x[c])));
  for (int c = 0; c < C; ++c) {
    if (type == KvType::kF32) {
      ASSERT_EQ(stored[c], x[c]);
    }
    if (type == KvType::kBF16) {
      ASSERT_EQ(stored[c], to_float(to_bf16(x[c])));
      ASSERT_LE(std::abs(stored[c] - x[c]), 0x1p-8 * std::abs(x[c]));
    }
    if (type == KvType::kInt8) {
      ASSERT_LE(std::abs(stored[c] - x[c]), largest / 127 * (0.5 + 127 * gamma(3))) << c;
    }
  }
}

TEST(KvFormat, StoresTheNearest) {
  for (const KvType type : kTypes)
    for (const auto& widths : kWidths)
      for (const int m : {1, 3}) {
        const int C = widths[0], W = widths[1];  // a lambda may not capture a structured binding
        SCOPED_TRACE(testing::Message() << to_string(type) << ", " << m << " heads of " << C << " and " << W);
        const KvShape shape{m, C, W, type};
        const Rows rows(shape, C);
        for_each_target([&] {
          Bytes kv = empty_cache(shape);
          write(shape, rows, 0, kLength, kv);
          const ref::StoredKv stored = ref::read_kv(shape, kv.data(), kBlocks, kLength);
          for (int row = 0; row < kLength * m; ++row) {
            check_row(type, rows.k_SmC.data() + row * C, stored.k_SmC.data() + row * C, C);
            check_row(type, rows.v_SmW.data() + row * W, stored.v_SmW.data() + row * W, W);
          }
        });
      }
}

TEST(KvFormat, AppendingChangesNothingThatIsThereOnAnyTarget) {
  for (const KvType type : kTypes) {
    const KvShape shape{2, 17, 20, type};
    const Rows rows(shape, 3);
    Bytes first;
    for_each_target([&] {
      Bytes whole = empty_cache(shape), appended = whole;
      write(shape, rows, 0, kLength, whole);
      if (first.empty()) first = whole;
      EXPECT_EQ(whole, first) << to_string(type);
      for (int i = 0; i < kLength; ++i) {
        write(shape, rows, i, 1, appended);
        const ref::StoredKv now = ref::read_kv(shape, appended.data(), kBlocks, i + 1);
        const ref::StoredKv all = ref::read_kv(shape, whole.data(), kBlocks, i + 1);
        ASSERT_EQ(now.k_SmC, all.k_SmC) << to_string(type) << ", " << i + 1 << " positions";
        ASSERT_EQ(now.v_SmW, all.v_SmW) << to_string(type) << ", " << i + 1 << " positions";
      }
      EXPECT_EQ(appended, whole) << to_string(type);
    });
  }
}

// Zeros, the smallest and the largest numbers (of bf16), and what is not finite, which must not pass for a number.
TEST(KvFormat, ExtremeRows) {
  constexpr float kMost = 0x1.fep127f, kInfinity = std::numeric_limits<float>::infinity();
  for (const KvType type : kTypes)
    for (const float x : {0.0f, 0x1p-149f, 0x1p-126f, kMost, kInfinity, -kInfinity, std::nanf("")}) {
      const KvShape shape{1, 3, 3, type};
      Rows rows(shape, 1);
      std::fill(rows.v_SmW.begin(), rows.v_SmW.end(), 0.0f);
      rows.v_SmW[1] = x;
      for_each_target([&] {
        Bytes kv = empty_cache(shape);
        write(shape, rows, 0, kLength, kv);
        const ref::StoredKv stored = ref::read_kv(shape, kv.data(), kBlocks, 2);
        if (!std::isfinite(x)) {
          EXPECT_FALSE(std::isfinite(stored.v_SmW[1])) << to_string(type) << " of " << x;
        } else {
          const double step = type == KvType::kF32 ? 0 : type == KvType::kBF16 ? 0x1p-8 * x : x / 127.0;
          EXPECT_NEAR(stored.v_SmW[1], x, std::max(step, 0x1p-126)) << to_string(type);
          EXPECT_EQ(stored.v_SmW[0], 0) << to_string(type);
        }
        for (int c = 3; c < 6; ++c) EXPECT_EQ(stored.v_SmW[c], 0) << "the next position";
      });
    }
}

}  // namespace
}  // namespace foe
