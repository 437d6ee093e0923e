#include "kernels/formats/feedback.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"

namespace foe {
namespace {

using Lanes = std::array<float, kPanel>;  // a number of each row

// C, of which the lower triangle is there, as V in the same place and D. Channel k takes from the others' C what it
// makes up for, the last channel first. A row gets what several others take while it is in the cache.
void factor(std::vector<double>& c, int n, std::vector<double>& remaining) {
  constexpr int kTogether = 32;
  const auto row = [&](int k) { return c.data() + static_cast<std::size_t>(k) * n; };
  for (int end = n; end > 0; end -= kTogether) {
    const int begin = std::max(0, end - kTogether);
    for (int i = end - 1; i >= 0; --i) {
      double* to = row(i);
      for (int k = end - 1; k >= std::max(begin, i + 1); --k) {
        const double v = row(k)[i] / remaining[k];
        for (int j = 0; j <= i; ++j) to[j] -= v * row(k)[j];
      }
      if (i >= begin) remaining[i] = to[i];
    }
  }
  for (int k = 0; k < n; ++k)
    for (int j = 0; j < k; ++j) row(k)[j] /= remaining[k];
}

// The columns of one block of correlations.
class Columns {
 public:
  Columns(const float* w, int rows, int depth, int begin, const Correlations::Block& by, const float* importance)
      : w_(w), rows_(rows), depth_(depth), begin_(begin), by_(by), importance_(importance), scaled_(size()) {
    float most = 0;
    for (int k = 0; k < size(); ++k) most = std::max(most, importance_[begin_ + k]);
    // A channel that is hardly ever used can make up for nothing: the floor keeps its weight from being moved far.
    for (int k = 0; k < size(); ++k) roots_.push_back(std::sqrt(std::max(importance_[begin_ + k], 1e-6f * most)));
  }

  void round(WeightBlock* blocks) {
    const int all = (depth_ + kCodeBlock - 1) / kCodeBlock;
    for (int k = 0; k < size(); k += kCodeBlock)
      round(k, std::min(size(), k + kCodeBlock), blocks + (begin_ + k) / kCodeBlock, all);
  }

 private:
  int size() const { return by_.end - by_.begin; }
  float weight(int r, int k) const { return w_[static_cast<std::size_t>(r) * depth_ + begin_ + k]; }

  // Adds what the errors of columns [from, to) ask of column k.
  void ask(int k, int from, int to, Lanes& sum) const {
    const float* v = by_.factor.data() + static_cast<std::size_t>(k) * size();
    for (int j = from; j < to; ++j)
      for (int r = 0; r < kPanel; ++r) sum[r] += v[j] * scaled_[j][r];
  }
  // What row r of column k is rounded to the nearest of.
  float target(int r, int k, const Lanes& sum) const {
    const float moved = weight(r, k) + sum[r] / roots_[k];
    return std::isfinite(moved) ? moved : weight(r, k);
  }

  // Rounds columns [begin, end), a block of the format. Its scales and factors are chosen before its own errors are
  // known.
  void round(int begin, int end, WeightBlock* blocks, int stride) {
    std::vector<Lanes> sums(end - begin, Lanes{});
    for (int k = begin; k < end; ++k) ask(k, 0, begin, sums[k - begin]);
    float counts[kCodeBlock], targets[kCodeBlock];
    for (int k = begin; k < end; ++k) counts[k - begin] = roots_[k] * roots_[k] * by_.remaining[k];
    for (int r = 0; r < rows_; ++r) {
      for (int k = begin; k < end; ++k) targets[k - begin] = target(r, k, sums[k - begin]);
      blocks[r * stride] = quantise_block(WeightFormat::kInt4, targets, end - begin, counts);
    }
    for (int k = begin; k < end; ++k) {
      ask(k, begin, k, sums[k - begin]);
      for (int r = 0; r < rows_; ++r) {
        WeightBlock& block = blocks[r * stride];
        std::int8_t& code = block.codes[k - begin];
        code = nearest_int4(block.scale, code, target(r, k, sums[k - begin]));
        scaled_[k][r] = roots_[k] * (weight(r, k) - block.scale * static_cast<float>(kInt4Products[code]));
      }
    }
  }

  // The code with the factor of `code` that is nearest to x; `code` if the scale is zero.
  static std::int8_t nearest_int4(float scale, std::int8_t code, float x) {
    const float unit = scale * static_cast<float>(kInt4Factors[code / 16]), level = x / unit;
    if (!std::isfinite(level)) return code;
    int index = 0;
    while (index < 15 && level > 0.5f * static_cast<float>(kInt4Levels[index] + kInt4Levels[index + 1])) ++index;
    return static_cast<std::int8_t>(code / 16 * 16 + index);
  }

  const float* w_;
  int rows_, depth_, begin_;  // of the matrix's columns, the first
  const Correlations::Block& by_;
  const float* importance_;
  std::vector<float> roots_;   // S
  std::vector<Lanes> scaled_;  // S e of the columns that are rounded
};

}  // namespace

Correlations::Block correlate(const float* gram, int begin, int end, double rows) {
  const int n = end - begin;
  std::vector<double> c(static_cast<std::size_t>(n) * n), roots(n);
  for (int k = 0; k < n; ++k) roots[k] = std::sqrt(gram[static_cast<std::size_t>(k) * n + k]);
  const double kept = rows / (rows + n);
  for (int i = 0; i < n; ++i) {
    double* row = c.data() + static_cast<std::size_t>(i) * n;
    for (int j = 0; j < i; ++j)
      if (const double scale = roots[i] * roots[j]; scale > 0)
        row[j] = kept * gram[static_cast<std::size_t>(i) * n + j] / scale;
    row[i] = 1;
  }
  std::vector<double> remaining(n);
  factor(c, n, remaining);
  return {begin, end, {c.begin(), c.end()}, {remaining.begin(), remaining.end()}};
}

void quantise_with_feedback(const float* w, int rows, int depth, const ColumnErrors& errors, WeightBlock* blocks) {
  FOE_CHECK(0 < rows && rows <= kPanel && errors.importance && errors.correlations, "{} rows", rows);
  int column = 0;
  for (const Correlations::Block& by : errors.correlations->blocks) {
    if (by.begin != errors.first + column || column == depth) continue;
    FOE_CHECK(column % kCodeBlock == 0, "channels {} to {} at column {}", by.begin, by.end, column);
    Columns(w, rows, depth, column, by, errors.importance).round(blocks);
    column += by.end - by.begin;
  }
  FOE_CHECK(column == depth, "correlations of {} columns, {} columns", column, depth);
}

}  // namespace foe
