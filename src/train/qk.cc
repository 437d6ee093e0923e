#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "core/sum_blocks.h"
#include "train/attention.h"
#include "train/sums.h"

namespace foe::train {
namespace {

// Calls body(unit, stream, column, width, weight offset, is_query) for every RMSNorm in a row of qkv.
template <typename Body>
void for_each_unit(const ModelConfig& config, const Dims& d, Body&& body) {
  if (config.heads().qk_norm == QkNorm::kNone) return;
  const bool full = config.heads().qk_norm == QkNorm::kFull;
  const int q_width = d.stream_heads() * d.head_dim, k_width = d.stream_kv_heads() * d.head_dim;
  int unit = 0;
  for (int s = 0; s < d.streams; ++s) {
    const int q_column = s * d.stream_qkv(), k_column = q_column + q_width;
    if (full) {
      body(unit++, s, q_column, q_width, (d.first_stream + s) * q_width, true);
      body(unit++, s, k_column, k_width, (d.first_stream + s) * k_width, false);
      continue;
    }
    for (int i = 0; i < d.stream_heads(); ++i) body(unit++, s, q_column + i * d.head_dim, d.head_dim, 0, true);
    for (int i = 0; i < d.stream_kv_heads(); ++i) body(unit++, s, k_column + i * d.head_dim, d.head_dim, 0, false);
  }
}

// Rotates the queries and keys of one row.
template <typename T>
void rotate_row(const Dims& d, const T* cosines, const T* sines, T* row) {
  for (int s = 0; s < d.streams; ++s)
    for (int i = 0; i < d.stream_heads() + d.stream_kv_heads(); ++i)
      rope(row + s * d.stream_qkv() + i * d.head_dim, cosines, sines, d.head_dim);
}

// The norm of one unit, with its squares added in the blocks in which inference adds them: those of heads where a full
// QK-norm spans the heads of an ordinary model, which ranks may share, otherwise one.
template <typename T>
T norm_unit(const std::vector<int>& kv_begin, int kv_heads, const TermSum& sum, const T* weight, T eps, int width,
            T* x) {
  T squares[kSumBlocks];
  const int per_kv = width / kv_heads;
  for (int b = 0; b < sum.terms(); ++b)
    squares[b] = sum_of_squares(x + kv_begin[b] * per_kv, (kv_begin[b + 1] - kv_begin[b]) * per_kv);
  sum.add(squares, 1, 1);
  const T scale = 1 / std::sqrt(squares[0] / static_cast<T>(width) + eps);
  scale_row(x, weight, scale, width);
  return scale;
}

}  // namespace

template <typename T>
RopeTable<T>::RopeTable(const ModelConfig& config, int table_length)
    : length(table_length),
      half(config.heads().key_width / 2),
      cosines(product(length, half)),
      sines(cosines.size()),
      back(cosines.size()) {
  const AttentionConfig& attention = config.heads();
  const RopeFrequencies frequencies = rope_frequencies(attention.rotation());
  for (int position = 0; position < length; ++position) {
    const std::size_t at = product(position, half);
    if constexpr (std::is_same_v<T, float>) {
      rope_angles(position, frequencies, cosines.data() + at, sines.data() + at);
    } else {
      for (int i = 0; i < half; ++i) {
        const double angle = position / frequencies.stretch * frequencies.inverse[i];
        cosines[at + i] = std::cos(angle);
        sines[at + i] = std::sin(angle);
      }
    }
  }
  for (std::size_t i = 0; i < sines.size(); ++i) back[i] = -sines[i];
}

int qk_norm_units(const ModelConfig& config, const Dims& d) {
  int units = 0;
  for_each_unit(config, d, [&](auto...) { ++units; });
  return units;
}

template <typename T>
void qk_forward(const ModelConfig& config, const Dims& d, Span span, const RopeTable<T>& rope, const T* q_norm,
                const T* k_norm, T* qkv_TW, T* raw_TW, T* scale_TU) {
  const int units = qk_norm_units(config, d);
  const T eps = static_cast<T>(config.rms_norm_eps);
  const bool whole = config.heads().qk_norm == QkNorm::kFull && !config.federated();
  const std::vector<int> blocks = whole ? head_blocks(config).begin : std::vector{0, 1};
  const TermSum sum(static_cast<int>(blocks.size()) - 1);
  for (int t = 0; t < span.tokens(); ++t) {
    T* row = qkv_TW + product(t, d.qkv);
    if (units) std::copy_n(row, d.qkv, raw_TW + product(t, d.qkv));
    for_each_unit(config, d, [&](int unit, int, int column, int width, int weight, bool query) {
      scale_TU[product(t, units) + unit] =
          norm_unit(blocks, blocks.back(), sum, (query ? q_norm : k_norm) + weight, eps, width, row + column);
    });
    const std::size_t angle = product(t % span.length, rope.half);
    rotate_row(d, rope.cosines.data() + angle, rope.sines.data() + angle, row);
  }
}

template <typename T>
void qk_backward(const ModelConfig& config, const Dims& d, Span span, const RopeTable<T>& rope, const T* q_norm,
                 const T* k_norm, const T* raw_TW, const T* scale_TU, T* dqkv_TW, T* dq_norm, T* dk_norm,
                 std::size_t norm_stride) {
  const int units = qk_norm_units(config, d);
  std::vector<T> through(d.qkv);  // a copy of a row's gradient, while its own place is overwritten
  for (int t = 0; t < span.tokens(); ++t) {
    T* row = dqkv_TW + product(t, d.qkv);
    const std::size_t angle = product(t % span.length, rope.half);
    rotate_row(d, rope.cosines.data() + angle, rope.back.data() + angle, row);
    for_each_unit(config, d, [&](int unit, int stream, int column, int width, int weight, bool query) {
      std::copy_n(row + column, width, through.data());
      std::fill_n(row + column, width, T{0});
      rms_norm_row_backward(raw_TW + product(t, d.qkv) + column, (query ? q_norm : k_norm) + weight,
                            scale_TU[product(t, units) + unit], through.data(), width, row + column,
                            (query ? dq_norm : dk_norm) + weight + stream * norm_stride);
    });
  }
}

#define FOE_INSTANTIATE(T)                                                                                            \
  template struct RopeTable<T>;                                                                                       \
  template void qk_forward(const ModelConfig&, const Dims&, Span, const RopeTable<T>&, const T*, const T*, T*, T*,    \
                           T*);                                                                                       \
  template void qk_backward(const ModelConfig&, const Dims&, Span, const RopeTable<T>&, const T*, const T*, const T*, \
                            const T*, T*, T*, T*, std::size_t);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
