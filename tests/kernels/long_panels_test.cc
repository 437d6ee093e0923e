// Long panels of one row are multiplied several at a time. Whatever their number, a row has the bits that it has in a
// batch.
#include <algorithm>

#include <gtest/gtest.h>

#include "each_target.h"
#include "kernels/products/gemm.h"
#include "numerics.h"

namespace foe {
namespace {

TEST(LongPanels, OneRowIsWhatItIsAmongMany) {
  constexpr int kDepth = 2048, kRows = 3, kMostWidth = 7 * kPanel;
  const std::vector<float> w = random_values(kMostWidth * kDepth, 1), x = random_values(kRows * kDepth, 2);
  ThreadPool one(1);
  for (const WeightFormat format : kWeightFormats) {
    if (in_parts(format)) continue;  // parts_gemm_test.cc
    AlignedBuffer<std::byte> codes(kRows * quantised_row_bytes(format, kDepth));
    const QuantisedRows rows{codes.data(), codes.size() / kRows};
    if (rounds_rows(format)) quantise_rows(one, format, x.data(), kDepth, kRows, kDepth, rows);
    for (int width = kPanel; width <= kMostWidth; width += kPanel) {
      SCOPED_TRACE(testing::Message() << to_string(format) << ", " << width << " outputs");
      const StoredMatrix stored{DType::kF32, reinterpret_cast<const std::byte*>(w.data()), kDepth * sizeof(float),
                                width, kDepth};
      const PackedMatrix packed = pack(one, {&stored, 1}, format);
      const auto multiply_rows = [&](int first, int count) {
        std::vector<float> y(static_cast<std::size_t>(count) * width);
        const Product product{.x = x.data() + first * kDepth,
                              .x_stride = kDepth,
                              .count = count,
                              .w = &packed,
                              .y = y.data(),
                              .y_stride = static_cast<std::size_t>(width),
                              .quantised = from_row(rows, first)};
        multiply(one, {&product, 1});
        return y;
      };
      for_each_target_of_codes([&] {
        const std::vector<float> together = multiply_rows(0, kRows);
        for (int row = 0; row < kRows; ++row) {
          const auto begin = together.begin() + row * width;
          ASSERT_EQ(multiply_rows(row, 1), std::vector<float>(begin, begin + width)) << "row " << row;
        }
      });
    }
  }
}

}  // namespace
}  // namespace foe
