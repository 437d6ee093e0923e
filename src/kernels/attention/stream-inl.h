// Computes spans for one tile, as in decode: keys and values come from memory and are widened in registers.

#if defined(FOE_KERNELS_ATTENTION_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ATTENTION_STREAM_INL_H_
#undef FOE_KERNELS_ATTENTION_STREAM_INL_H_
#else
#define FOE_KERNELS_ATTENTION_STREAM_INL_H_
#endif

#include "kernels/attention/span-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// Returns how many panels to multiply at a time, so that rows * panels * registers are enough independent chains of
// multiply-adds to hide their latency.
constexpr int panels_for(int rows) {
  const int panels = rows == 1 ? 4 : rows == 2 ? 2 : 1;
  return kVecs == 1 && rows > 1 ? 2 * panels : panels;
}

// acc += x [kRows][depth] times panels [kPanels][depth][16]. With each line of a panel that is read, the lines at the
// same place of `ahead` are prefetched.
template <int kRows, int kPanels, int kAhead, typename T>
HWY_INLINE void stream_panels(int depth, const float* const (&x)[kRows], const T* const (&panels)[kPanels],
                              std::size_t row_stride, const T* const (&ahead)[kAhead], V16 (&acc)[kRows][kPanels]) {
  constexpr int kStep = kCacheLine / (kLanes16 * sizeof(T));
  const auto add = [&](int k, int count) HWY_ATTR {
    const float* from[kRows];
    const T* at[kPanels];
    for (int r = 0; r < kRows; ++r) from[r] = x[r] + k;
    for (int p = 0; p < kPanels; ++p) at[p] = panels[p] + k * row_stride;
    multiply_rows<kRows, kPanels>(count, from, at, row_stride, acc);
  };
  int k = 0;
  for (; k + kStep <= depth; k += kStep) {
    for (const T* a : ahead) hwy::Prefetch(a + k * kLanes16);
    add(k, kStep);
  }
  if (k < depth) add(k, depth - k);
}

// Multiplies with the keys of some blocks. Meanwhile their values are prefetched, and the keys of the next blocks:
// those of a first span have not been prefetched yet, and others may have left the first-level cache again.
template <int kRows, int kBlocks, typename T>
HWY_NOINLINE void multiply_keys(const AttentionTile& tile, const Span<T>& span, int begin,
                                float (*products)[kAttentionSpan]) {
  V16 acc[kRows][kBlocks];
  clear_tile(acc);
  const float* q[kRows];
  const T *keys[kBlocks], *ahead[2 * kBlocks];
  for (int r = 0; r < kRows; ++r) q[r] = tile.q[r];
  for (int b = 0; b < kBlocks; ++b) {
    keys[b] = span.keys_C16[begin + b];
    ahead[b] = span.values_16C[begin + b];
    ahead[kBlocks + b] = span.keys_C16[std::min(begin + kBlocks + b, span.blocks - 1)];
  }
  stream_panels<kRows, kBlocks>(span.key_width, q, keys, kKvBlock, ahead, acc);
  store_tile(acc, products[0] + begin * kKvBlock, kAttentionSpan);
}

// Merges columns [c, c + 16) of a span's outputs, or leaves them among the parts.
template <typename T>
HWY_INLINE void take_outputs(const AttentionTile& tile, const Span<T>& span, const SpanFactors* factors, int c,
                             const float (*outputs)[kLanes16]) {
  for (int r = 0; r < tile.rows; ++r)
    if (tile.parts != nullptr)
      store16(load16(outputs[r]), tile.part_outputs(span.index, r) + c);
    else if (tile.sees(r, span.first))
      merge_outputs(load16(outputs[r]), factors[r], tile.out[r] + c, tile.shape->value_width - c);
}

// Computes columns c .. c + 16 kPanels of a span's outputs. Meanwhile the next span's keys are prefetched.
template <int kRows, int kPanels, typename T>
HWY_NOINLINE void combine_values(const AttentionTile& tile, const Span<T>& span, const Span<T>& next,
                                 float (*weights)[kAttentionSpan], const SpanFactors* factors, int c) {
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  for (int b = 0; b < span.blocks; ++b) {
    const float* block_weights[kRows];
    const T *values[kPanels], *ahead[kPanels];
    for (int r = 0; r < kRows; ++r) block_weights[r] = weights[r] + b * kKvBlock;
    for (int p = 0; p < kPanels; ++p) {
      values[p] = span.value_panel(b, c + p * kLanes16);
      ahead[p] = (b < next.blocks ? next.keys_C16[b] : span.keys_C16[b]) + (c + p * kLanes16) * kKvBlock;
    }
    stream_panels<kRows, kPanels>(std::min(kKvBlock, span.count - b * kKvBlock), block_weights, values,
                                  span.value_stride(*tile.shape), ahead, acc);
  }
  HWY_ALIGN float outputs[kPanels][kRows][kLanes16];
  for (int p = 0; p < kPanels; ++p)
    for (int r = 0; r < kRows; ++r) store16(acc[r][p], outputs[p][r]);
  for (int p = 0; p < kPanels; ++p) take_outputs(tile, span, factors, c + p * kLanes16, outputs[p]);
}

template <int kRows, typename T>
void stream_span(AttentionTile& tile, const Span<T>& span, const Span<T>& next) {
  constexpr int kPanels = panels_for(kRows);
  HWY_ALIGN float weights[kRows][kAttentionSpan];
  SpanFactors factors[kRows];
  int b = 0;
  for (; b + kPanels <= span.blocks; b += kPanels) multiply_keys<kRows, kPanels>(tile, span, b, weights);
  for (; b < span.blocks; ++b) multiply_keys<kRows, 1>(tile, span, b, weights);
  weigh_span(tile, span, span.blocks, weights[0], factors);
  const int width = tile.shape->padded_values();
  int c = 0;
  for (; c + kPanels * kLanes16 <= width; c += kPanels * kLanes16)
    combine_values<kRows, kPanels>(tile, span, next, weights, factors, c);
  for (; c < width; c += kLanes16) combine_values<kRows, 1>(tile, span, next, weights, factors, c);
}

HWY_INLINE void begin_outputs(const AttentionTile& tile) {
  for (int r = 0; r < tile.rows; ++r) std::fill(tile.out[r], tile.out[r] + tile.shape->value_width, 0.0f);
}
// What is added to each output at the end. With kBF16, adding +0 makes every zero positive, because the sign of a zero
// may depend on which code computed it.
inline float sign_of_zero(const KvShape& shape) {
  return shape.attention == AttentionType::kBF16 ? 0.0f : -0.0f;
}
HWY_INLINE void normalise_outputs(const AttentionTile& tile) {
  const float zero = sign_of_zero(*tile.shape);
  for (int r = 0; r < tile.rows; ++r)
    for (int c = 0; c < tile.shape->value_width; ++c) tile.out[r][c] = tile.out[r][c] / tile.running[r].sum + zero;
}

// Computes the spans of a tile. Before the last span ends, the first keys of `following` are prefetched.
template <typename T>
void stream_spans(AttentionTile& tile, const AttentionTile& following) {
  if (tile.parts == nullptr) begin_outputs(tile);
  for (int i = tile.span_begin; i < tile.span_end; ++i) {
    const Span<T> next = i + 1 < tile.span_end ? Span<T>(tile, i + 1) : Span<T>(following, following.span_begin);
    with_rows(tile.rows, [&]<int kRows>() { stream_span<kRows>(tile, Span<T>(tile, i), next); });
  }
  if (tile.parts == nullptr) normalise_outputs(tile);
}

// Computes the outputs of a tile from the parts of all its spans. Not inlined, like attend().
HWY_NOINLINE void merge_tile(AttentionTile& tile) {
  begin_outputs(tile);
  for (int span = tile.first_span(); span < tile.end_span(); ++span) {
    SpanFactors factors[AttentionTile::kMaxRows];
    merge_running(tile, &tile.part(span, 0), factors);
    for (int r = 0; r < tile.rows; ++r) {
      if (!tile.sees(r, span * kAttentionSpan)) continue;
      const float* part = tile.part_outputs(span, r);
      for (int c = 0; c < tile.shape->value_width; c += kLanes16)
        merge_outputs(load16(part + c), factors[r], tile.out[r] + c, tile.shape->value_width - c);
    }
  }
  normalise_outputs(tile);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
