// Decodes quantised weights and rows of activations.
#pragma once

#include <cstddef>

#include "kernels/formats/quantise.h"

namespace foe {

// Returns weight k of a block.
inline float weight_value(WeightFormat format, const WeightBlock& block, int k) {
  return block.scale *
         static_cast<float>(format == WeightFormat::kInt8 ? block.codes[k] : kInt4Products[block.codes[k]]);
}

// Returns the block that has element k of row i.
inline const RowBlock& row_block_of(const QuantisedRows& rows, int i, int k) {
  return reinterpret_cast<const RowBlock*>(rows.data + i * rows.stride)[k / kCodeBlock];
}
inline int quantised_code(const QuantisedRows& rows, int i, int k) {
  return row_block_of(rows, i, k).codes[k % kCodeBlock];
}
inline double quantised_value(const QuantisedRows& rows, int i, int k) {
  return static_cast<double>(row_block_of(rows, i, k).scale) * quantised_code(rows, i, k);
}

}  // namespace foe
