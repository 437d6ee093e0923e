// Decodes quantised weights and rows of activations, and rotates plainly.
#pragma once

#include <array>
#include <cstddef>

#include "kernels/formats/quantise.h"

namespace foe {

using CodedFloats = std::array<float, kCodeBlock>;

// The definition of the rotation of a block: the Walsh-Hadamard transform, in which partners at distances of 1, 2, 4
// ... become their sum and difference.
inline CodedFloats rotated(CodedFloats x) {
  for (int distance = 1; distance < kCodeBlock; distance *= 2)
    for (int i = 0; i < kCodeBlock; ++i)
      if ((i & distance) == 0) {
        const float a = x[i], b = x[i + distance];
        x[i] = a + b;
        x[i + distance] = a - b;
      }
  return x;
}
// What the codes of n weights and of n activations stand for.
inline CodedFloats coded_weights(WeightFormat format, const float* w, int n) {
  const bool rotates = format == WeightFormat::kInt8;
  CodedFloats x{};
  for (int k = 0; k < n; ++k) x[k] = rotates ? w[k] / kCodeBlock : w[k];
  return rotates ? rotated(x) : x;
}
inline CodedFloats coded_row(WeightFormat format, const float* x, int n) {
  CodedFloats all{};
  for (int k = 0; k < n; ++k) all[k] = x[k];
  return format == WeightFormat::kInt8 ? rotated(all) : all;
}

// Returns what code k of a block stands for.
inline float weight_value(WeightFormat format, const WeightBlock& block, int k) {
  return block.scale *
         static_cast<float>(format == WeightFormat::kInt8 ? block.codes[k] : kInt4Products[block.codes[k]]);
}

// Returns the block that has element k of row i.
template <typename Block = RowBlock>
const Block& row_block_of(const QuantisedRows& rows, int i, int k) {
  return reinterpret_cast<const Block*>(rows.data + i * rows.stride)[k / kCodeBlock];
}
// Codes are at the beginning of a block of either kind.
inline int quantised_code(const QuantisedRows& rows, int i, int k) {
  static_assert(offsetof(RowBlock, codes) == offsetof(RowBlockOfParts, codes));
  return row_block_of(rows, i, k).codes[k % kCodeBlock];
}
// Returns what code k of row i beside int8 and int4 stands for.
inline double quantised_value(const QuantisedRows& rows, int i, int k) {
  return static_cast<double>(row_block_of(rows, i, k).scale) * quantised_code(rows, i, k);
}
// Returns the scale and the value of element k of row i beside formats in parts.
inline float scale_in_parts(const QuantisedRows& rows, int i, int k) {
  return row_block_of<RowBlockOfParts>(rows, i, k).scales[k % kCodeBlock / kRowPart];
}
inline double value_in_parts(const QuantisedRows& rows, int i, int k) {
  return static_cast<double>(scale_in_parts(rows, i, k)) * quantised_code(rows, i, k);
}

}  // namespace foe
