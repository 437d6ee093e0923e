// What the codes of quantised rows of activations say.
#pragma once

#include <cstddef>

#include "kernels/quantise.h"

namespace foe {

// Calls body(block, index in it) for element k of row i.
template <typename Body>
auto in_row_block(WeightFormat format, const QuantisedRows& rows, int i, int k, Body&& body) {
  const std::byte* row = rows.data + i * rows.stride;
  const auto find = [&]<typename Block>(const Block* blocks) {
    constexpr int kDepth = sizeof blocks->codes;
    return body(blocks[k / kDepth], k % kDepth);
  };
  return format == WeightFormat::kInt8 ? find(reinterpret_cast<const RowBlock<WeightFormat::kInt8>*>(row))
                                       : find(reinterpret_cast<const RowBlock<WeightFormat::kInt4>*>(row));
}

// The code of element k of row i, and its scale.
inline int quantised_code(WeightFormat format, const QuantisedRows& rows, int i, int k) {
  return in_row_block(format, rows, i, k, [](const auto& block, int j) -> int { return block.codes[j]; });
}
inline float quantised_scale(WeightFormat format, const QuantisedRows& rows, int i, int k) {
  return in_row_block(format, rows, i, k, [](const auto& block, int) { return block.scale; });
}
inline double quantised_value(WeightFormat format, const QuantisedRows& rows, int i, int k) {
  return static_cast<double>(quantised_scale(format, rows, i, k)) * quantised_code(format, rows, i, k);
}

}  // namespace foe
