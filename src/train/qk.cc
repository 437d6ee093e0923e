#include <algorithm>
#include <cmath>

#include "train/attention.h"
#include "train/rows.h"

namespace foe::train {
namespace {

// Calls body(unit, column, width, weight offset, is_query) for every RMSNorm in a row of qkv.
template <typename Body>
void for_each_unit(const ModelConfig& config, const Dims& d, Body&& body) {
  if (config.heads().qk_norm == QkNorm::kNone) return;
  const bool full = config.heads().qk_norm == QkNorm::kFull;
  const int q_width = d.stream_heads() * d.head_dim, k_width = d.stream_kv_heads() * d.head_dim;
  int unit = 0;
  for (int s = 0; s < d.streams; ++s) {
    const int q_column = s * d.stream_qkv(), k_column = q_column + q_width;
    if (full) {
      body(unit++, q_column, q_width, s * q_width, true);
      body(unit++, k_column, k_width, s * k_width, false);
      continue;
    }
    for (int i = 0; i < d.stream_heads(); ++i) body(unit++, q_column + i * d.head_dim, d.head_dim, 0, true);
    for (int i = 0; i < d.stream_kv_heads(); ++i) body(unit++, k_column + i * d.head_dim, d.head_dim, 0, false);
  }
}

// Rotates the queries and keys of one row by the angle or, in the backward pass, by the negative angle.
template <typename T>
void rotate_row(const Dims& d, const T* cosines, const T* sines, T sign, T* row) {
  const int half = d.head_dim / 2;
  for (int s = 0; s < d.streams; ++s)
    for (int i = 0; i < d.stream_heads() + d.stream_kv_heads(); ++i) {
      T* a = row + s * d.stream_qkv() + i * d.head_dim;
      T* b = a + half;
      for (int j = 0; j < half; ++j) {
        const T x = a[j], y = b[j], c = cosines[j], sine = sign * sines[j];
        a[j] = x * c - y * sine;
        b[j] = y * c + x * sine;
      }
    }
}

}  // namespace

template <typename T>
RopeTable<T>::RopeTable(const ModelConfig& config, int table_length)
    : length(table_length),
      half(config.heads().key_width / 2),
      cosines(static_cast<std::size_t>(length) * half),
      sines(static_cast<std::size_t>(length) * half) {
  const AttentionConfig& attention = config.heads();
  Rotation rotation = attention.rotation();
  rotation.f32 = false;  // training computes angles in f64
  const RopeFrequencies frequencies = rope_frequencies(rotation);
  for (int position = 0; position < length; ++position)
    for (int i = 0; i < half; ++i) {
      const double angle = position / frequencies.stretch * frequencies.inverse[i];
      cosines[static_cast<std::size_t>(position) * half + i] = static_cast<T>(std::cos(angle));
      sines[static_cast<std::size_t>(position) * half + i] = static_cast<T>(std::sin(angle));
    }
}

int qk_norm_units(const ModelConfig& config) {
  int units = 0;
  for_each_unit(config, Dims(config), [&](auto...) { ++units; });
  return units;
}

template <typename T>
void qk_forward(const ModelConfig& config, Span span, const RopeTable<T>& rope, const T* q_norm, const T* k_norm,
                T* qkv_TW, T* raw_TW, T* scale_TU) {
  const Dims d(config);
  const int units = qk_norm_units(config);
  const T eps = static_cast<T>(config.rms_norm_eps);
  for (int t = 0; t < span.tokens(); ++t) {
    T* row = qkv_TW + static_cast<std::size_t>(t) * d.qkv;
    T* raw = raw_TW + (units ? static_cast<std::size_t>(t) * d.qkv : 0);
    if (units) std::copy_n(row, d.qkv, raw);
    for_each_unit(config, d, [&](int unit, int column, int width, int weight, bool query) {
      scale_TU[static_cast<std::size_t>(t) * units + unit] =
          rms_norm_row(raw + column, (query ? q_norm : k_norm) + weight, eps, width, row + column);
    });
    const std::size_t angle = static_cast<std::size_t>(t % span.length) * rope.half;
    rotate_row(d, rope.cosines.data() + angle, rope.sines.data() + angle, T{1}, row);
  }
}

template <typename T>
void qk_backward(const ModelConfig& config, Span span, const RopeTable<T>& rope, const T* q_norm, const T* k_norm,
                 const T* raw_TW, const T* scale_TU, T* dqkv_TW, T* dq_norm, T* dk_norm) {
  const Dims d(config);
  const int units = qk_norm_units(config);
  std::vector<T> through(d.qkv);  // a copy of a row's gradient, while its own place is overwritten
  for (int t = 0; t < span.tokens(); ++t) {
    T* row = dqkv_TW + static_cast<std::size_t>(t) * d.qkv;
    const std::size_t angle = static_cast<std::size_t>(t % span.length) * rope.half;
    rotate_row(d, rope.cosines.data() + angle, rope.sines.data() + angle, T{-1}, row);
    for_each_unit(config, d, [&](int unit, int column, int width, int weight, bool query) {
      std::copy_n(row + column, width, through.data());
      std::fill_n(row + column, width, T{0});
      rms_norm_row_backward(raw_TW + static_cast<std::size_t>(t) * d.qkv + column, (query ? q_norm : k_norm) + weight,
                            scale_TU[static_cast<std::size_t>(t) * units + unit], through.data(), width, row + column,
                            (query ? dq_norm : dk_norm) + weight);
    });
  }
}

#define FOE_INSTANTIATE(T)                                                                                             \
  template struct RopeTable<T>;                                                                                        \
  template void qk_forward(const ModelConfig&, Span, const RopeTable<T>&, const T*, const T*, T*, T*, T*);             \
  template void qk_backward(const ModelConfig&, Span, const RopeTable<T>&, const T*, const T*, const T*, const T*, T*, \
                            T*, T*);
FOE_INSTANTIATE(float)
FOE_INSTANTIATE(double)
#undef FOE_INSTANTIATE

}  // namespace foe::train
