// Products of activations with the model's matrices: linear(), and those that end in sums, which are attention's output
// projection and the experts.
//
// Shape letters: T tokens, D model width, P partial sums of this rank's terms, n query heads, W width of a value, R
// rows sorted by expert, f local hidden width.
#pragma once

#include "model/step.h"

namespace foe {

// Activations x [rows, depth] that products read, with `stride` floats from row to row.
struct Input {
  const float* x;
  std::size_t stride;
  int rows, depth;
};

// The first rows of input_TD, which norm_rows() has written.
inline Input input_rows(const Step& s, int rows) {
  const int D = s.model.config.hidden_size;
  return {s.a.products.input_TD.data(), static_cast<std::size_t>(D), rows, D};
}

// Multiplies rows of the input by matrices of the model, which have one format, in one parallel loop: y = x w^T + bias,
// with the bias in `plus`. The products' x point into the input. All of it is rounded once, if products with the format
// require that (quantise_rows), and `quantised` is set.
void linear(Step& s, const Input& in, std::span<Product> products);
// The same with one matrix and all rows: y [rows, rows of w].
void linear(Step& s, const Input& in, const PackedMatrix& w, float* y);

// Returns the values, or null if there are none.
inline const float* if_any(const std::vector<float>& values) {
  return values.empty() ? nullptr : values.data();
}

// Writes attention's partial sums to term_PTD. With a shared residual the terms are blocks of heads, and the first of
// all has the bias. In a federated model they are the local streams, Attn_h or, if the sum takes updates with it, M_h +
// Attn_h, and each has the bias, which is added to M_h then. In a layer that does not sync, this is the new M_h.
void project_output(Step& s, int layer);

// Writes FFN_e(x) to output_RD for the sorted rows of each local expert e of a layer; `routing` says which rows of x,
// the input, each expert runs. All experts of a wave (weights/expert_store.h) are multiplied in one parallel loop for
// gate and up, and in one for down.
void multiply_experts(Step& s, int layer, const Input& in, const Routing& routing);

// Writes the partial sums of a dense layer's FFN of input_TD, over blocks of hidden units, to the updates.
void multiply_dense(Step& s, int layer);

}  // namespace foe
