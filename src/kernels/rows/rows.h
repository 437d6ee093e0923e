// Operations on rows of activations. Rows are independent, so nothing here depends on the batch a row is in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "core/sum_tree.h"

namespace foe {

// RMSNorm (Zhang and Sennrich 2019): y = (x + add) / sqrt(mean((x + add)^2) + eps) * weight, over rows of n floats.
// `add` may be null. y may be x. Strides are in floats; add has x's stride.
struct RowNorm {
  const float* x = nullptr;
  const float* add = nullptr;
  std::size_t x_stride = 0;
  const float* weight = nullptr;
  float* y = nullptr;
  std::size_t y_stride = 0;
  int rows = 0;
  int n = 0;
  float eps = 0;
  // The same x so many times, each with an `add` of its own, so far behind the last; y has their rows in turn.
  int times = 1;
  std::size_t add_stride = 0;
};
void rms_norm(ThreadPool& pool, const RowNorm& norm);

// The two halves of RMSNorm, for rows whose width is split over ranks: the sum of squares of one share, and
// x = x * inverse_rms * weight.
float sum_of_squares(const float* x, int n);
void scale_row(float* x, const float* weight, float inverse_rms, int n);

// Cosines and sines of the rotary embedding for one position: [head_dim / 2] each. angle_i = position / factor *
// theta^(-2i / head_dim), in double.
void rope_angles(double position, double theta, double factor, int head_dim, float* cosines, float* sines);

// Rotates one head in place, pairing element i with i + head_dim / 2 (the order of Hugging Face checkpoints).
void rope(float* head, const float* cosines, const float* sines, int head_dim);

// y += scale * x
void add_scaled(float* y, const float* x, float scale, std::size_t n);
// y += x
void add_to(float* y, const float* x, std::size_t n);

// probabilities = softmax(scores) over n entries; may be in place. The largest probability is 0 < p <= 1 for finite
// scores.
void softmax(const float* scores, int n, float* probabilities);

// The k largest of probabilities[0..n), ties to the lower index; indices are written in ascending order.
void top_k(const float* probabilities, int n, int k, std::int32_t* indices);

// The most rows that the two below take.
inline constexpr int kMaxSummedRows = 64;

// y = sum over j < count of rows[j], in the order of `merges`; y may be one of the rows. count >= 1.
void add_rows(const float* const* rows, const Merge* merges, int count, std::size_t n, float* y);

// y = sum over j < count of weights[j] * rows[j], in the order of `merges` (sum_tree_merges of the rows' indices), plus
// +0.
void combine_rows(const float* const* rows, const float* weights, const Merge* merges, int count, int n, float* y);

}  // namespace foe
