// A product cut into blocks of its inner dimension: views of one packed matrix, added by a tree, are what the blocks
// give that are packed, and their rows quantised, by themselves. So a rank that has some of them adds the same numbers.
#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "each_target.h"
#include "kernels/products/gemm.h"
#include "numerics.h"

namespace foe {
namespace {

// Rows of x from a column on, as products with this format take them; `codes` keeps them.
QuantisedRows quantised_columns(WeightFormat format, const std::vector<float>& x, int depth, int column, int columns,
                                AlignedBuffer<std::byte>& codes) {
  if (!rounds_rows(format)) return {};
  const int rows = static_cast<int>(x.size()) / depth;
  const std::size_t stride = quantised_row_bytes(format, columns);
  codes = AlignedBuffer<std::byte>(rows * stride);
  ThreadPool one(1);
  quantise_rows(one, format, x.data() + column, depth, rows, columns, {codes.data(), stride});
  return {codes.data(), stride};
}

void check_blocks(WeightFormat format, int count, int width, const std::vector<int>& begin, int threads) {
  const int blocks = static_cast<int>(begin.size()) - 1, depth = begin.back();
  const std::vector<float> w = random_values(static_cast<std::size_t>(width) * depth, 1);
  const std::vector<float> x = random_values(static_cast<std::size_t>(count) * depth, 2);
  const StoredMatrix stored{DType::kF32, reinterpret_cast<const std::byte*>(w.data()), depth * sizeof(float), width,
                            depth};
  ThreadPool pool(threads);
  const PackedMatrix whole = pack(pool, {&stored, 1}, format);
  AlignedBuffer<std::byte> row_codes;
  const QuantisedRows rows = quantised_columns(format, x, depth, 0, depth, row_codes);
  std::vector<int> indices(blocks);
  std::iota(indices.begin(), indices.end(), 0);
  std::vector<Merge> merges(blocks - 1);
  sum_tree_merges(indices.data(), blocks, merges.data());

  for_each_target_of_codes([&] {
    std::vector<std::vector<float>> terms;
    std::vector<PackedMatrix> views;
    std::vector<Product> products;
    std::vector<AlignedBuffer<std::byte>> codes(blocks);
    for (int b = 0; b < blocks; ++b) {
      const int column = begin[b], columns = begin[b + 1] - column;
      const StoredMatrix part = stored.slice(0, width, column, columns);
      const PackedMatrix packed = pack(pool, {&part, 1}, format);
      Product alone{.x = x.data() + column,
                    .x_stride = static_cast<std::size_t>(depth),
                    .count = count,
                    .w = &packed,
                    .y = terms.emplace_back(static_cast<std::size_t>(count) * width).data(),
                    .y_stride = static_cast<std::size_t>(width),
                    .quantised = quantised_columns(format, x, depth, column, columns, codes[b])};
      multiply(pool, {&alone, 1});
      views.push_back(whole.view(0, width, column, columns));
      products.push_back(alone);
      products.back().y = nullptr;
      if (rows.data) products.back().quantised = {rows.data + quantised_bytes(format, column), rows.stride};
    }
    for (int b = 0; b < blocks; ++b) products[b].w = &views[b];
    for (const Merge& m : merges)
      for (std::size_t i = 0; i < terms[0].size(); ++i) terms[m.into][i] += terms[m.from][i];
    std::vector<float> sum(terms[0].size());
    products[0].y = sum.data();
    multiply_and_sum(pool, products, merges);
    ASSERT_EQ(sum, terms[0]);
  });
}

// Rows that make one tile, several, and more than one block of rows; panels long enough to be read in several streams.
TEST(BlockSum, ViewsAddWhatBlocksByThemselvesDo) {
  for (const WeightFormat format : kWeightFormats) {
    if (in_parts(format)) continue;  // values cannot be rounded to it
    for (const int count : {1, 2, 5, 16, 50}) {
      SCOPED_TRACE(testing::Message() << to_string(format) << ", " << count << " rows");
      check_blocks(format, count, 100, {0, 128, 256, 512, 640}, 2);
      check_blocks(format, count, 40, {0, 256, 512, 768, 1024, 1280, 1536, 1792, 2000}, 1);
    }
  }
}

}  // namespace
}  // namespace foe
