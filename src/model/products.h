// The products of a layer that end in sums: attention's output projection and the experts.
//
// Shape letters: T tokens, D model width, P partial sums of this rank's terms, n query heads, C head width, R rows
// sorted by expert, f local hidden width.
#pragma once

#include "model/step.h"

namespace foe {

// Returns x [rows, depth of w] rounded as products with w require it (quantise_rows), or nothing if they take floats.
// The rounded rows are in s.a.codes, where they replace the `slot`-th of several x with as many rows.
QuantisedRows quantise(Step& s, const PackedMatrix& w, const float* x, std::size_t x_stride, int rows, int slot = 0);

// Writes attention's partial sums to term_PTD. With a shared residual the terms are blocks of heads. In a federated
// model they are the local streams, Attn_h or, with `own_updates`, M_h + Attn_h.
void project_output(Step& s, int layer, bool own_updates);

// Writes FFN_e(x) to output_RD for the sorted rows of each local expert e. x has `rows` rows, and `routing` says which
// of them each expert runs. All experts are multiplied in one parallel loop for gate and up, and in one for down.
void multiply_experts(Step& s, const LayerWeights& w, const float* x, std::size_t x_stride, int rows,
                      const Routing& routing);

// Writes the partial sums of a dense model's FFN of input_TD, over blocks of hidden units, to the updates.
void multiply_dense(Step& s, int layer);

}  // namespace foe
