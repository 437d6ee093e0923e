// The row operations of training that need exponentials or sums over a row, in f32. train/rows.h has the same formulas
// for any type, as plain loops: those are what the gradient check runs on, and the reference for these.
#pragma once

#include <cstdint>

namespace foe {

// y = x * s * weight with s = 1 / sqrt(mean(x^2) + eps); returns s.
float rms_norm_row(const float* x, const float* weight, float eps, int n, float* y);

// Adds the gradients that follow from dy to dx and dweight. `scale` is what rms_norm_row() returned.
void rms_norm_row_backward(const float* x, const float* weight, float scale, const float* dy, int n, float* dx,
                           float* dweight);

float dot(const float* a, const float* b, int n);

// x[0..n) = softmax(scale * x[0..n)); returns the log of the sum of exp(scale * x).
float softmax_row(float* x, int n, float scale);

// Backward through y = softmax(scale * x), given what softmax_row() returned: replaces x[0..n) by y = exp(scale * x -
// log_sum), and dy[0..n) by dx = scale * y * (dy - delta), where delta is the sum of y * dy.
void softmax_row_backward(float* x, float* dy, int n, float scale, float log_sum, float delta);

// h = weight * silu(gate) * up
void swiglu_row(const float* gate, const float* up, float weight, int n, float* h);

// Backward: takes dh, writes dgate, dup and, once more, h, and returns the gradient of `weight`.
float swiglu_row_backward(const float* gate, const float* up, float weight, const float* dh, int n, float* dgate,
                          float* dup, float* h);

// Returns -log softmax(logits)[target].
float cross_entropy_row(const float* logits, int n, std::int32_t target);

// The same, and replaces the logits by their gradient times `scale`: scale * (softmax(logits) - [i = target]).
float cross_entropy_row_backward(float* logits, int n, std::int32_t target, float scale);

}  // namespace foe
