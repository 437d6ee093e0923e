// Products with weights in the types of GGUF that keep their numbers in panels, against a plain reference that reads
// blocks as ggml-common.h defines them.
#include <cstring>

#include <gtest/gtest.h>

#include "base/error.h"
#include "each_target.h"
#include "kernels/products/gemm.h"
#include "numerics.h"
#include "quantised_values.h"

namespace foe {
namespace {

constexpr DType kTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ6_K};
constexpr WeightFormat kFormats[] = {WeightFormat::kQ8_0, WeightFormat::kQ4_1, WeightFormat::kQ4_K,
                                     WeightFormat::kQ6_K};

float half(const std::uint8_t* at) {
  F16 value;
  std::memcpy(&value, at, sizeof value);
  return to_float(value);
}

// Whether a block has a number for a minimum beside its scale.
bool stores_minimum(DType type) {
  return type == DType::kQ4_1 || type == DType::kQ4_K;
}

// One weight: scale * code - min, of whose parts each is exact.
struct Weight {
  double scale, min;
  int code;
};

// Weight k of a row of blocks.
Weight weight_of(DType type, const std::uint8_t* row, int k) {
  const DTypeInfo& info = info_of(type);
  const std::uint8_t* b = row + k / info.elements * info.bytes;
  k %= info.elements;
  if (type == DType::kQ8_0) return {half(b), 0, static_cast<std::int8_t>(b[2 + k])};
  if (type == DType::kQ4_0 || type == DType::kQ4_1) {
    const int byte = b[(type == DType::kQ4_0 ? 2 : 4) + k % 16], code = k < 16 ? byte & 15 : byte >> 4;
    return {half(b), type == DType::kQ4_0 ? 8.0 * half(b) : -static_cast<double>(half(b + 2)), code};
  }
  if (type == DType::kQ4_K) {  // get_scale_min_k4() of ggml-quants.c
    const int j = k / 32;
    const std::uint8_t* q = b + 4;
    const int s = j < 4 ? q[j] & 63 : (q[j + 4] & 15) | (q[j - 4] >> 6) << 4;
    const int t = j < 4 ? q[j + 4] & 63 : (q[j + 4] >> 4) | (q[j] >> 6) << 4;
    const int byte = b[16 + k / 64 * 32 + k % 32];
    return {static_cast<double>(half(b)) * s, static_cast<double>(half(b + 2)) * t,
            k % 64 < 32 ? byte & 15 : byte >> 4};
  }
  // dequantize_row_q6_K()
  const std::uint8_t *ql = b + k / 128 * 64, *qh = b + 128 + k / 128 * 32;
  const int l = k % 32, quarter = k % 128 / 32;
  const int low = quarter % 2 == 0 ? ql[l] : ql[l + 32];
  const int code = (quarter < 2 ? low & 15 : low >> 4) | (qh[l] >> 2 * quarter & 3) << 4;
  return {static_cast<double>(half(b + 208)) * static_cast<std::int8_t>(b[192 + k / 16]), 0, code - 32};
}

// Random blocks with finite halves, whose numbers have one magnitude.
std::vector<std::byte> random_blocks(DType type, int rows, int depth, std::uint64_t seed) {
  std::vector<std::byte> bytes(rows * bytes_of(type, depth));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random_bits(seed, i));
  const DTypeInfo& info = info_of(type);
  for (std::size_t at = 0; at < bytes.size(); at += info.bytes) {
    const auto place = [&](std::size_t offset, std::uint64_t bits) {
      const auto h = static_cast<std::uint16_t>(0x2000 + bits % 0x400 + bits / 0x400 % 2 * 0x8000);
      std::memcpy(bytes.data() + at + offset, &h, sizeof h);
    };
    place(type == DType::kQ6_K ? 208 : 0, random_bits(seed + 1, at));
    if (stores_minimum(type)) place(2, random_bits(seed + 2, at));
  }
  return bytes;
}

StoredMatrix stored(DType type, const std::vector<std::byte>& bytes, int rows, int depth) {
  return {type, bytes.data(), bytes_of(type, depth), rows, depth};
}

struct Rows {
  AlignedBuffer<std::byte> bytes;
  QuantisedRows view;

  Rows(const std::vector<float>& x, int rows, int n)
      : bytes(rows * quantised_row_bytes(WeightFormat::kQ8_0, n)),
        view{bytes.data(), quantised_row_bytes(WeightFormat::kQ8_0, n)} {
    quantise_rows(one_thread(), WeightFormat::kQ8_0, x.data(), n, rows, n, view);
  }
};

// What parts.h says, one number after the other. The columns are those from `skip` on of the stored rows.
float expected_bits(DType type, const std::uint8_t* w, int skip, const QuantisedRows& x, int i, int depth) {
  const int part = type == DType::kQ6_K ? 16 : 32;
  float y = 0;
  for (int begin = 0; begin < depth; begin += kRowPart) {
    float sum = 0;
    for (int k = begin; k < begin + kRowPart; k += part) {
      int dot = 0, codes = 0;
      for (int j = k; j < k + part; ++j) {
        dot += quantised_code(x, i, j) * weight_of(type, w, skip + j).code;
        codes += quantised_code(x, i, j);
      }
      const Weight first = weight_of(type, w, skip + k);
      sum = std::fma(static_cast<float>(dot), static_cast<float>(first.scale), sum);
      sum = std::fma(static_cast<float>(codes), -static_cast<float>(first.min), sum);
    }
    y = std::fma(sum, scale_in_parts(x, i, begin), y);
  }
  return y;
}

// Each output has the very bits of the definition: on every instruction set, for any number of rows, threads and
// panels.
TEST(PartsGemm, HasTheBitsOfItsDefinition) {
  const auto pools = thread_pools();
  for (const DType type : kTypes)
    for (const int depth : {256, 1792})  // the longer panels are read several at a time
      for (const int width : {1, 16, 33, 100}) {
        constexpr int kMost = 60;
        const auto bytes = random_blocks(type, width, depth, depth + width);
        const StoredMatrix matrix = stored(type, bytes, width, depth);
        const PackedMatrix w = pack(one_thread(), {&matrix, 1}, *keeps_parts(matrix));
        const Rows x(random_values(static_cast<std::size_t>(kMost) * depth, 3), kMost, depth);
        std::vector<float> expected;
        for (int i = 0; i < kMost; ++i)
          for (int n = 0; n < width; ++n)
            expected.push_back(expected_bits(
                type, reinterpret_cast<const std::uint8_t*>(bytes.data()) + n * matrix.row_bytes, 0, x.view, i, depth));
        for_each_target_of_codes([&] {
          for (const int count : {1, 2, 3, 5, 6, 7, 13, kMost})
            for (const int first : {0, kMost - count}) {
              SCOPED_TRACE(testing::Message() << to_string(type) << " " << count << "x" << width << "x" << depth);
              std::vector<float> y(static_cast<std::size_t>(count) * width, -12345.0f);
              const Product product{.count = count,
                                    .w = &w,
                                    .y = y.data(),
                                    .y_stride = static_cast<std::size_t>(width),
                                    .quantised = from_row(x.view, first)};
              multiply(*pools[count % 3], {&product, 1});
              ASSERT_TRUE(std::equal(y.begin(), y.end(), expected.begin() + first * width));
            }
        });
        if (testing::Test::HasFailure()) return;
      }
}

// The definition itself is near the product of the weights that decode() gives with the activations' codes: so many
// roundings of each term.
TEST(PartsGemm, MatchesDecodedWeights) {
  constexpr int kRows = 3, kDepth = 768, kWidth = 20;
  for (const DType type : kTypes) {
    const auto bytes = random_blocks(type, kWidth, kDepth, 5);
    const StoredMatrix matrix = stored(type, bytes, kWidth, kDepth);
    const PackedMatrix w = pack(one_thread(), {&matrix, 1}, *keeps_parts(matrix));
    const Rows x(random_values(kRows * kDepth, 6), kRows, kDepth);
    std::vector<float> y(kRows * kWidth), row(kDepth);
    const Product product{.count = kRows, .w = &w, .y = y.data(), .y_stride = kWidth, .quantised = x.view};
    multiply(one_thread(), {&product, 1});
    for (int n = 0; n < kWidth; ++n) {
      matrix.read_row(n, row.data());
      for (int i = 0; i < kRows; ++i) {
        double expected = 0, magnitude = 0;
        for (int k = 0; k < kDepth; ++k) {
          const Weight weight =
              weight_of(type, reinterpret_cast<const std::uint8_t*>(bytes.data()) + n * matrix.row_bytes, k);
          ASSERT_NEAR(row[k], weight.scale * weight.code - weight.min,
                      gamma(3) * (std::abs(weight.scale * weight.code) + std::abs(weight.min)));
          expected += value_in_parts(x.view, i, k) * (weight.scale * weight.code - weight.min);
          magnitude +=
              std::abs(value_in_parts(x.view, i, k)) * (std::abs(weight.scale * weight.code) + std::abs(weight.min));
        }
        // Each term is in up to four sums of kRowPart, and then in one for each kRowPart.
        const double roundings = 4 + kDepth / kRowPart + 1;
        ASSERT_NEAR(y[i * kWidth + n], expected, gamma(roundings) * magnitude) << to_string(type);
      }
    }
  }
}

// What ranks have: rows and columns of a matrix that is packed whole, or packed from a slice that begins inside a
// block.
TEST(PartsGemm, SharesHaveTheBitsOfTheirColumns) {
  constexpr int kRows = 80, kDepth = 1024;
  for (const DType type : kTypes) {
    const auto bytes = random_blocks(type, kRows, kDepth, 9);
    const StoredMatrix matrix = stored(type, bytes, kRows, kDepth);
    const WeightFormat format = *keeps_parts(matrix);
    const PackedMatrix whole = pack(one_thread(), {&matrix, 1}, format);
    for (const auto& [row, count, column, columns] :
         {std::tuple{0, 80, 0, 1024}, {16, 40, 128, 256}, {48, 32, 384, 640}, {64, 16, 896, 128}}) {
      const StoredMatrix slice = matrix.slice(row, count, column, columns);
      const PackedMatrix parts[] = {whole.view(row, count, column, columns), pack(one_thread(), {&slice, 1}, format)};
      const Rows x(random_values(5 * columns, 3), 5, columns);
      for (const PackedMatrix& w : parts)
        for_each_target_of_codes([&, row = row, count = count, column = column, columns = columns] {
          std::vector<float> y(5 * count);
          const Product product{
              .count = 5, .w = &w, .y = y.data(), .y_stride = static_cast<std::size_t>(count), .quantised = x.view};
          multiply(one_thread(), {&product, 1});
          for (int i = 0; i < 5; ++i)
            for (int n = 0; n < count; ++n)
              ASSERT_EQ(y[i * count + n],
                        expected_bits(
                            type, reinterpret_cast<const std::uint8_t*>(bytes.data()) + (row + n) * matrix.row_bytes,
                            column, x.view, i, columns));
        });
    }
  }
}

// Types with blocks of 32: a matrix may end inside a block of panels, and begin at any part.
TEST(PartsGemm, BlocksOf32BeginAndEndAtAnyPart) {
  constexpr int kRows = 20, kDepth = 608, kColumn = 96, kColumns = 416;
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    const auto bytes = random_blocks(type, kRows, kDepth, 2);
    const StoredMatrix slice = stored(type, bytes, kRows, kDepth).slice(0, kRows, kColumn, kColumns);
    const PackedMatrix w = pack(one_thread(), {&slice, 1}, *keeps_parts(slice));
    const Rows x(random_values(3 * kColumns, 3), 3, kColumns);
    for_each_target_of_codes([&] {
      std::vector<float> y(3 * kRows);
      const Product product{.count = 3, .w = &w, .y = y.data(), .y_stride = kRows, .quantised = x.view};
      multiply(one_thread(), {&product, 1});
      for (int i = 0; i < 3; ++i)
        for (int n = 0; n < kRows; ++n)
          ASSERT_EQ(
              y[i * kRows + n],
              expected_bits(type, reinterpret_cast<const std::uint8_t*>(bytes.data()) + n * bytes_of(type, kDepth),
                            kColumn, x.view, i, kColumns))
              << to_string(type);
    });
  }
}

// All scales that a panel can hold, the smallest and those of either sign too.
TEST(PartsGemm, MinimumsOfQ4_0AreExact) {
  std::vector<std::byte> block(bytes_of(DType::kQ4_0, 32));
  const StoredMatrix one = stored(DType::kQ4_0, block, 1, 32);
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 d{static_cast<std::uint16_t>(bits)};
    std::memcpy(block.data(), &d, sizeof d);
    if ((bits & 0x7fffu) >= 0x7000u) {  // 8192
      EXPECT_THROW(pack(one_thread(), {&one, 1}, WeightFormat::kQ4_1), Error) << bits;
      continue;
    }
    const PackedMatrix w = pack(one_thread(), {&one, 1}, WeightFormat::kQ4_1);
    F16 m;
    std::memcpy(&m, w.data + 4 * kPanel * sizeof m, sizeof m);
    ASSERT_EQ(to_float(m), 8 * to_float(d)) << bits;
  }
}

// The largest codes and scales there are, of one sign.
TEST(PartsGemm, LargestCodesAreExact) {
  constexpr int kDepth = 256, kWidth = 17, kRows = 7;
  for (const DType type : kTypes)
    for (const int byte : {0x00, 0x7f, 0x80, 0xff})
      for (const float sign : {1.0f, -1.0f}) {
        std::vector<std::byte> bytes(kWidth * bytes_of(type, kDepth), static_cast<std::byte>(byte));
        const DTypeInfo& info = info_of(type);
        const std::uint16_t one = 0x3c00;
        for (std::size_t at = 0; at < bytes.size(); at += info.bytes) {
          std::memcpy(bytes.data() + at + (type == DType::kQ6_K ? 208 : 0), &one, sizeof one);
          if (stores_minimum(type)) std::memcpy(bytes.data() + at + 2, &one, sizeof one);
        }
        const StoredMatrix matrix = stored(type, bytes, kWidth, kDepth);
        const PackedMatrix w = pack(one_thread(), {&matrix, 1}, *keeps_parts(matrix));
        const Rows x(std::vector<float>(kRows * kDepth, sign * kMostCode), kRows, kDepth);
        ASSERT_EQ(quantised_code(x.view, 0, 0), sign * kMostCode);
        for_each_target_of_codes([&] {
          for (const int count : {1, kRows}) {
            std::vector<float> y(count * kWidth);
            const Product product{.count = count, .w = &w, .y = y.data(), .y_stride = kWidth, .quantised = x.view};
            multiply(one_thread(), {&product, 1});
            const float expected =
                expected_bits(type, reinterpret_cast<const std::uint8_t*>(bytes.data()), 0, x.view, 0, kDepth);
            for (const float value : y) ASSERT_EQ(value, expected) << to_string(type) << " " << byte;
          }
        });
      }
}

TEST(PartsGemm, GateAndUpAreMultipliedTogether) {
  constexpr int kWidth = 40, kDepth = 256, kRows = 9;
  for (const DType type : kTypes) {
    const auto gate_bytes = random_blocks(type, kWidth, kDepth, 1), up_bytes = random_blocks(type, kWidth, kDepth, 7);
    const StoredMatrix gate = stored(type, gate_bytes, kWidth, kDepth), up = stored(type, up_bytes, kWidth, kDepth);
    const WeightFormat format = *keeps_parts(gate);
    const PackedMatrix both = pack_gate_up(one_thread(), gate, up, format);
    const PackedMatrix alone[] = {pack(one_thread(), {&gate, 1}, format), pack(one_thread(), {&up, 1}, format)};
    std::vector<float> values = random_values(kRows * kDepth, 3);
    for (float& value : values) value *= 0x1p-10f;  // for gates near 1
    const Rows x(values, kRows, kDepth);
    for_each_target_of_codes([&] {
      for (const int count : {1, kRows}) {
        std::vector<float> y(count * kWidth), parts[2] = {y, y};
        const auto product = [&](const PackedMatrix& w, std::vector<float>& out) {
          return Product{.count = count, .w = &w, .y = out.data(), .y_stride = kWidth, .quantised = x.view};
        };
        const Product together = product(both, y);
        multiply_gated(one_thread(), {&together, 1}, {kWidth});
        for (int i = 0; i < 2; ++i) {
          const Product part = product(alone[i], parts[i]);
          multiply(one_thread(), {&part, 1});
        }
        for (int i = 0; i < count * kWidth; ++i) {
          const double expected = ref::silu(parts[0][i]) * parts[1][i];
          ASSERT_NEAR(y[i], expected, gamma(8) * std::abs(expected)) << i;
        }
      }
    });
  }
}

TEST(PartsGemm, OnlyWholePartsAreKept) {
  const auto bytes = random_blocks(DType::kQ4_K, 2, 512, 1);
  const StoredMatrix k = stored(DType::kQ4_K, bytes, 2, 512);
  EXPECT_EQ(keeps_parts(k), WeightFormat::kQ4_K);
  EXPECT_EQ(keeps_parts(k.slice(0, 1, 128, 256)), WeightFormat::kQ4_K);
  EXPECT_EQ(keeps_parts(k.slice(0, 1, 64, 256)), std::nullopt);
  EXPECT_EQ(keeps_parts(k.slice(0, 1, 128, 64)), std::nullopt);
  const StoredMatrix eight{DType::kQ8_0, bytes.data(), bytes_of(DType::kQ8_0, 128), 2, 128};
  EXPECT_EQ(keeps_parts(eight.slice(0, 1, 32, 64)), WeightFormat::kQ8_0);
  EXPECT_EQ(keeps_parts(eight.slice(0, 1, 16, 64)), std::nullopt);
  EXPECT_EQ(keeps_parts({DType::kQ5_0, bytes.data(), 88, 2, 128}), std::nullopt);
}

TEST(PartsGemm, BitsOfAWeight) {
  EXPECT_EQ(bits(WeightFormat::kQ8_0), 8.5);
  EXPECT_EQ(bits(WeightFormat::kQ4_1), 5);
  EXPECT_EQ(bits(WeightFormat::kQ4_K), 4.75);
  EXPECT_EQ(bits(WeightFormat::kQ6_K), 6.75);
  for (const WeightFormat format : kFormats) EXPECT_TRUE(in_parts(format) && quantised(format));
}

}  // namespace
}  // namespace foe
