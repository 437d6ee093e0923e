// Operations on rows of activations. Rows are independent, so the bits of a row do not depend on its batch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"
#include "core/rope.h"
#include "core/sum_tree.h"

namespace foe {

// RMSNorm (Zhang and Sennrich 2019): y = (x + add) / sqrt(mean((x + add)^2) + eps) * weight, over rows of n floats.
// `add` may be null, and y may be x. Strides are in floats; the rows of `add` have the stride of x.
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
  // The same x is normalised `times` times, each time with another `add`, which is add_stride floats after the one
  // before. y has all rows of the first, then all rows of the second, and so on.
  int times = 1;
  std::size_t add_stride = 0;
};
void rms_norm(ThreadPool& pool, const RowNorm& norm);

// The two halves of RMSNorm, for rows whose width is split over ranks: sum_of_squares() returns the sum over one part,
// and scale_row() computes x = x * inverse_rms * weight.
float sum_of_squares(const float* x, int n);
void scale_row(float* x, const float* weight, float inverse_rms, int n);

// Writes cosines and sines of the rotary embedding (RoPE) for one position, one for each frequency. Angles, cosines and
// sines are computed in double, but that an angle may be rounded to f32.
void rope_angles(int position, const RopeFrequencies& frequencies, float* cosines, float* sines);

// Rotate the first `width` elements of a head in place. rope() pairs element i with element i + width / 2, as most
// Hugging Face models have them, and rope_interleaved() 2i with 2i + 1, as GPT-J's and GLM's.
void rope(float* head, const float* cosines, const float* sines, int width);
void rope_interleaved(float* head, const float* cosines, const float* sines, int width);

// x = factor * x and then, if cap > 0, cap * tanh(x / cap)
void scale_and_cap(float* x, int n, float factor, float cap = 0);

// y += scale * x
void add_scaled(float* y, const float* x, float scale, std::size_t n);
// y += x
void add_to(float* y, const float* x, std::size_t n);

// probabilities = softmax(scores) over n entries; the two may be the same array. If all scores are finite, the largest
// probability is in (0, 1].
void softmax(const float* scores, int n, float* probabilities);

// y = 1 / (1 + e^-x) over n entries; the two may be the same array.
void sigmoid(const float* x, int n, float* y);

// The most rows that add_rows() and combine_rows() take.
inline constexpr int kMaxSummedRows = 64;

// y = sum over j < count of rows[j], in the order of `merges`; y may be one of the rows. count >= 1.
void add_rows(const float* const* rows, const Merge* merges, int count, std::size_t n, float* y);

// y = sum over j < count of weights[j] * rows[j], in the order of `merges` (sum_tree_merges of the rows' indices), plus
// +0.
void combine_rows(const float* const* rows, const float* weights, const Merge* merges, int count, int n, float* y);

}  // namespace foe
