#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "kernels/products/gemm.h"
#include "numerics.h"

namespace foe {
namespace {

float element(const PackedMatrix& w, int row, int k) {
  const std::size_t at = (static_cast<std::size_t>(row / kPanel) * w.depth + k) * kPanel + row % kPanel;
  if (w.format == WeightFormat::kF32) return reinterpret_cast<const float*>(w.data)[at];
  return to_float(reinterpret_cast<const BF16*>(w.data)[at]);
}

// Every element of the packed matrix: those past the end of the last panel are zero.
void expect_packed(const PackedMatrix& w, const std::vector<float>& values) {
  ASSERT_EQ(w.bytes(), static_cast<std::size_t>(w.panels()) * kPanel * w.depth * block_bytes(w.format) / kPanel);
  for (int row = 0; row < w.panels() * kPanel; ++row)
    for (int k = 0; k < w.depth; ++k)
      ASSERT_EQ(element(w, row, k), row < w.rows ? values[static_cast<std::size_t>(row) * w.depth + k] : 0.0f)
          << row << ", " << k;
}

TEST(Pack, PutsEveryElementIntoItsPanel) {
  for (const DType type : {DType::kF32, DType::kBF16})
    for (const int rows : {0, 1, 15, 16, 17, 48, 50})
      for (const int depth : {0, 1, 7, 64}) {
        SCOPED_TRACE(testing::Message() << rows << "x" << depth << " " << to_string(type));
        const Weights w(random_values(static_cast<std::size_t>(rows) * depth, rows + depth), rows, depth, type);
        const PackedMatrix packed = w.packed();
        EXPECT_EQ(packed.format, format_of(type));
        EXPECT_EQ(packed.rows, rows);
        EXPECT_EQ(packed.depth, depth);
        expect_packed(packed, w.values);
      }
}

TEST(Pack, StacksParts) {
  const Weights a(random_values(5 * 9, 1), 5, 9, DType::kF32), b(random_values(0, 2), 0, 9, DType::kF32),
      c(random_values(20 * 9, 3), 20, 9, DType::kBF16);
  const StoredMatrix parts[] = {a.matrix, b.matrix, c.matrix};
  std::vector<float> values = a.values;
  values.insert(values.end(), c.values.begin(), c.values.end());
  const PackedMatrix packed = pack(one_thread(), parts, WeightFormat::kF32);
  EXPECT_EQ(packed.rows, 25);
  expect_packed(packed, values);
}

// Rows are a share of heads or of the vocabulary, columns a share of an expert's width or of the heads' outputs.
TEST(Pack, TakesRowsAndColumnsOfASlice) {
  constexpr int kRows = 37, kDepth = 29;
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Weights w(random_values(kRows * kDepth, 4), kRows, kDepth, type);
    for (const auto& [row, rows, column, columns] : {std::tuple{0, kRows, 0, kDepth},
                                                     {3, 20, 0, kDepth},
                                                     {0, kRows, 5, 7},
                                                     {36, 1, 28, 1},
                                                     {7, 17, 1, 28},
                                                     {37, 0, 29, 0}}) {
      SCOPED_TRACE(testing::Message() << rows << " rows from " << row << ", " << columns << " columns from " << column);
      const StoredMatrix slice = w.matrix.slice(row, rows, column, columns);
      std::vector<float> values, read(columns);
      for (int i = 0; i < rows; ++i) {
        for (int k = 0; k < columns; ++k) values.push_back(w.values[(row + i) * kDepth + column + k]);
        slice.read_row(i, read.data());
        ASSERT_EQ(read, std::vector<float>(values.end() - columns, values.end()));
      }
      expect_packed(pack(one_thread(), {&slice, 1}, format_of(type)), values);
      // A slice of a slice is the same as one cut.
      expect_packed(
          pack(one_thread(),
               std::vector{w.matrix.slice(0, row + rows, column, kDepth - column).slice(row, rows, 0, columns)},
               format_of(type)),
          values);
    }
  }
}

TEST(PackDeathTest, SliceOutsideTheMatrix) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Weights w(random_values(6, 5), 2, 3, DType::kF32);
  EXPECT_DEATH(w.matrix.slice(1, 2, 0, 3), "rows 1\\+2 of 2");
  EXPECT_DEATH(w.matrix.slice(0, 2, 2, 2), "columns 2\\+2 of 3");
  EXPECT_DEATH(w.matrix.slice(-1, 2, 0, 3), "rows -1\\+2 of 2");
  float row[3];
  EXPECT_DEATH(w.matrix.read_row(2, row), "row 2 of 2");
  EXPECT_DEATH(pack(one_thread(), std::vector{w.matrix, w.matrix.slice(0, 2, 0, 2)}, WeightFormat::kF32),
               "depths 2 and 3");
  EXPECT_DEATH(pack_gate_up(one_thread(), w.matrix, w.matrix.slice(0, 1, 0, 3), WeightFormat::kF32),
               "gate \\[2, 3\\], up \\[1, 3\\]");
}

TEST(Pack, PutsMatricesSideBySide) {
  const Weights w(random_values(37 * 29, 8), 37, 29, DType::kF32);
  PackingSpace space;
  std::vector<PackedMatrix> packed;
  for (int i = 0; i < 3; ++i) packed.push_back(pack(one_thread(), {&w.matrix, 1}, WeightFormat::kF32, &space));
  for (const PackedMatrix& p : packed) expect_packed(p, w.values);
  EXPECT_EQ(packed[2].data - packed[1].data, static_cast<std::ptrdiff_t>((packed[1].bytes() + 63) / 64 * 64));
  // More than a piece of memory, and what still fits beside it or not.
  for (const std::size_t bytes : {std::size_t{65} << 20, std::size_t{1}, std::size_t{63} << 20, std::size_t{2} << 20}) {
    std::byte* data = space.take(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % 64, 0u);
    EXPECT_EQ(data[0], std::byte{0});
    EXPECT_EQ(data[bytes - 1], std::byte{0});
    std::fill_n(data, bytes, std::byte{0xff});
  }
  for (const PackedMatrix& p : packed) expect_packed(p, w.values);
}

// Tensors in a file start anywhere.
TEST(Pack, ReadsUnalignedSources) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Weights w(random_values(18 * 11, 6), 18, 11, type);
    for (std::size_t offset = 1; offset < 4; ++offset) {
      std::vector<std::byte> bytes(w.bytes.size() + offset);
      std::copy(w.bytes.begin(), w.bytes.end(), bytes.begin() + offset);
      StoredMatrix shifted = w.matrix;
      shifted.data = bytes.data() + offset;
      expect_packed(pack(one_thread(), {&shifted, 1}, format_of(type)), w.values);
      std::vector<float> row(11);
      shifted.read_row(17, row.data());
      EXPECT_EQ(row, std::vector<float>(w.values.end() - 11, w.values.end()));
    }
  }
}

TEST(Pack, WidensBf16Exactly) {
  const Weights w(random_values(33 * 5, 7), 33, 5, DType::kBF16);
  expect_packed(pack(one_thread(), {&w.matrix, 1}, WeightFormat::kF32), w.values);
}

TEST(Pack, RoundsF32ToNearestEvenBf16) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> in = {
      1.0f,
      0x1.01p0f,        // half way between 1 and 1 + 2^-7: to the even 1
      0x1.03p0f,        // half way between 1 + 2^-7 and 1 + 2^-6: to the even 1 + 2^-6
      0x1.010002p0f,    // just above half way
      0x1.00fffep0f,    // just below it
      -0x1.03p0f,       //
      0x1.fffffep127f,  // above the largest bf16 by more than half a step
      0x1.fep127f,      // the largest bf16
      infinity,
      -infinity,
      0.0f,
      -0.0f,
      0x1p-149f,  // less than half the smallest bf16, a subnormal
      0x1p-133f,  // the smallest bf16
  };
  const std::vector<float> expected = {1.0f,        1.0f,     0x1.04p0f, 0x1.02p0f, 1.0f,  -0x1.04p0f, infinity,
                                       0x1.fep127f, infinity, -infinity, 0.0f,      -0.0f, 0.0f,       0x1p-133f};
  StoredMatrix m{DType::kF32, reinterpret_cast<const std::byte*>(in.data()), in.size() * 4, 1,
                 static_cast<int>(in.size())};
  const PackedMatrix packed = pack(one_thread(), {&m, 1}, WeightFormat::kBF16);
  for (std::size_t k = 0; k < in.size(); ++k) {
    EXPECT_EQ(element(packed, 0, static_cast<int>(k)), expected[k]) << in[k];
    EXPECT_EQ(std::signbit(element(packed, 0, static_cast<int>(k))), std::signbit(expected[k])) << in[k];
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  m = {DType::kF32, reinterpret_cast<const std::byte*>(&nan), 4, 1, 1};
  EXPECT_TRUE(std::isnan(element(pack(one_thread(), {&m, 1}, WeightFormat::kBF16), 0, 0)));
}

TEST(Pack, AlternatesPanelsOfGateAndUp) {
  for (const int width : {0, 1, 16, 17, 40}) {
    const Weights gate(random_values(width * 6, 8), width, 6, DType::kF32),
        up(random_values(width * 6, 9), width, 6, DType::kF32);
    const PackedMatrix packed = pack_gate_up(one_thread(), gate.matrix, up.matrix, WeightFormat::kF32);
    const int panels = (width + 15) / 16;
    ASSERT_EQ(packed.rows, 2 * 16 * panels);
    for (int f = 0; f < 16 * panels; ++f)
      for (int k = 0; k < 6; ++k) {
        const int to = f / 16 * 32 + f % 16;
        EXPECT_EQ(element(packed, to, k), f < width ? gate.values[f * 6 + k] : 0.0f) << f;
        EXPECT_EQ(element(packed, to + 16, k), f < width ? up.values[f * 6 + k] : 0.0f) << f;
      }
  }
}

TEST(Pack, BiasesOfGateAndUpStandAsTheirRows) {
  for (const int width : {0, 1, 16, 17, 40}) {
    const auto gate = random_values(width, 8), up = random_values(width, 9);
    const std::vector<float> packed = pack_gate_up_bias(gate, up);
    const int panels = (width + 15) / 16;
    ASSERT_EQ(packed.size(), static_cast<std::size_t>(32 * panels));
    for (int f = 0; f < 16 * panels; ++f) {
      EXPECT_EQ(packed[f / 16 * 32 + f % 16], f < width ? gate[f] : 0.0f) << f;
      EXPECT_EQ(packed[f / 16 * 32 + 16 + f % 16], f < width ? up[f] : 0.0f) << f;
    }
  }
}

}  // namespace
}  // namespace foe
