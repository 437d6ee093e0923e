// The products of a layer that end in sums: attention's output projection and the experts.
//
// Shape letters: T tokens, D model width, P partial sums of this rank's terms, n query heads, C head width, R rows
// sorted by expert, f local hidden width.
#pragma once

#include "model/step.h"

namespace foe {

// Where w is quantised: x [rows, depth of w] as products with it take it, in place of the `slot`-th such x.
QuantisedRows quantise(Step& s, const PackedMatrix& w, const float* x, std::size_t x_stride, int rows, int slot = 0);

// term_PTD = this rank's partial sums of Attn over blocks of heads, or of Attn_h, with `own_updates` M_h + Attn_h, over
// the local streams, each of which is one block.
void project_output(Step& s, int layer, bool own_updates);

// output_RD = FFN_e(x) for the rows of each local expert e, of x's `rows`: all experts' rows in one parallel pass for
// gate and up, and one for down.
void multiply_experts(Step& s, const LayerWeights& w, const float* x, std::size_t x_stride, int rows,
                      const Routing& routing);

// update_PTD = the partial sums of a dense model's FFN, of input_TD, over blocks of its hidden units.
void multiply_dense(Step& s, int layer);

}  // namespace foe
