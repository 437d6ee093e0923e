// Rounds weights to int4 column by column, where later columns make up for the errors of earlier ones.
//
// What counts is the error of products with the activations x of a calibration text: for the errors e of a row of
// weights the mean of (e . x)^2, which is e^T H e with H the mean of x x^T. With H = S C S, where S has the roots of
// H's diagonal, and C = V^T D V, where V is unit lower triangular and D diagonal, this is
//
//     sum over k of D_k (S_k e_k + sum over j < k of V_kj S_j e_j)^2
//
// So weight k is rounded to what is nearest to w_k + (sum over j < k of V_kj S_j e_j) / S_k. These are the values of
// GPTQ (Frantar et al., arXiv 2210.17323), which takes them from the Cholesky factor of H's inverse.
#pragma once

#include <vector>

#include "kernels/formats/quantise.h"

namespace foe {

// C of some channels, as V and D. Channels of different blocks count as uncorrelated.
struct Correlations {
  struct Block {
    int begin = 0, end = 0;        // the channels
    std::vector<float> factor;     // V [end - begin, end - begin]; what is not below the diagonal is not read
    std::vector<float> remaining;  // D

    bool operator==(const Block&) const = default;
  };
  std::vector<Block> blocks;  // side by side, ascending

  bool operator==(const Correlations&) const = default;
};

// Returns a block by the sum of x x^T over so many rows, of which the lower triangle of `gram` [channels, channels] is
// read. Few rows say little of many pairs of channels: what is not on the diagonal of C is multiplied by rows /
// (rows + channels). Channels that are always zero are uncorrelated.
Correlations::Block correlate(const float* gram, int begin, int end, double rows);

// How the errors of a matrix's columns count. The caller owns what it points to.
struct ColumnErrors {
  const float* importance = nullptr;           // of each column, the squares of S; null: all count alike
  const Correlations* correlations = nullptr;  // null: errors are not made up for. Requires `importance`.
  int first = 0;                               // which channel the first column is

  // Returns the same from a column on.
  ColumnErrors from(int column) const {
    return {importance ? importance + column : nullptr, correlations, first + column};
  }
};

// Rounds `rows` <= kPanel rows w [rows, depth] to int4 with these errors, and writes block b of row r to
// blocks[r * ceil(depth / kCodeBlock) + b]. The columns must be whole blocks of correlations, each of which, but for
// the last, is whole blocks of the format.
void quantise_with_feedback(const float* w, int rows, int depth, const ColumnErrors& errors, WeightBlock* blocks);

}  // namespace foe
