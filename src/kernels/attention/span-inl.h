// One span of keys and values. Its scores become weights of the values, and factors with which its outputs are merged
// into those of the spans before.

#if defined(FOE_KERNELS_ATTENTION_SPAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ATTENTION_SPAN_INL_H_
#undef FOE_KERNELS_ATTENTION_SPAN_INL_H_
#else
#define FOE_KERNELS_ATTENTION_SPAN_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include <hwy/cache_control.h>

#include "kernels/attention/tile.h"
#include "kernels/math-inl.h"
#include "kernels/products/bf16_dot-inl.h"
#include "kernels/products/gemm_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

static_assert(kLanes16 == kKvBlock);
constexpr int kBlocksPerSpan = kAttentionSpan / kKvBlock;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline int blocks_of(int keys) {
  return (keys + kKvBlock - 1) / kKvBlock;
}

// Whether rows of keys and values come in pairs (kernels/formats/kv_format.h).
template <typename T>
constexpr bool kPaired = std::is_same_v<T, BF16>;

// The keys at [first, first + count) of one span, and their values, as far as a tile sees them.
template <typename T>
struct Span {
  static constexpr bool kScaled = std::is_same_v<T, std::int8_t>;

  int index, first, key_width;
  int count, blocks;
  const T* keys_C16[kBlocksPerSpan];
  const T* values_16C[kBlocksPerSpan];  // value_panel() says where columns c .. c + 16 begin
  const float* scales[kBlocksPerSpan];  // if kScaled: scales of 16 keys, then of 16 values

  Span(const AttentionTile& tile, int index_)
      : index(index_), first(index_ * kAttentionSpan), key_width(tile.shape->key_width) {
    const KvShape& shape = *tile.shape;
    count = tile.seen(tile.rows - 1, first);
    blocks = blocks_of(count);
    for (int b = 0; b < blocks; ++b) {
      const std::byte* block = tile.head_kv + tile.blocks[first / kKvBlock + b] * shape.block_bytes();
      keys_C16[b] = reinterpret_cast<const T*>(block + shape.scale_bytes());
      values_16C[b] = reinterpret_cast<const T*>(block + shape.values_at());
      scales[b] = reinterpret_cast<const float*>(block);
    }
  }

  // value_panel() returns columns [c, c + 16) of a block's values, and value_stride() the distance in elements to the
  // same columns of the next position (in panels of pairs, of the next pair of positions).
  const T* value_panel(int b, int c) const { return values_16C[b] + (kPaired<T> ? c * kKvBlock : c); }
  std::size_t value_stride(const KvShape& shape) const { return kPaired<T> ? kKvBlock : shape.padded_values(); }

  // Returns how many of the keys another tile takes, which must not see more: none if its windows begin after the span.
  int count_for(const AttentionTile& tile) const {
    return index < tile.first_span() ? 0 : tile.seen(tile.rows - 1, first);
  }
};

// acc[m][p] += the sum over ascending k of x[m][k] times row k of panel p. Rows are `stride` elements apart, or pairs
// of rows 2 * `stride`.
template <int kRows, int kPanels, typename T>
HWY_INLINE void multiply_rows(int depth, const float* const (&x)[kRows], const T* const (&panels)[kPanels],
                              std::size_t stride, V16 (&acc)[kRows][kPanels]) {
  if constexpr (!kPaired<T>) {
    multiply_scattered_panels<kRows, kPanels, true>(depth, x, 1, panels, stride, acc);
  } else {
    for (int k = 0; k < depth; k += 2) {
      repeat<kPanels>([&](auto p) FOE_INLINE {
        const V16 w = load_even(panels[p] + k * stride);
        repeat<kRows>([&](auto m) FOE_INLINE { acc[m][p] = fma(set16(x[m][k]), w, acc[m][p]); });
      });
      if (k + 1 == depth) break;
      repeat<kPanels>([&](auto p) FOE_INLINE {
        const V16 w = load_odd(panels[p] + k * stride);
        repeat<kRows>([&](auto m) FOE_INLINE { acc[m][p] = fma(set16(x[m][k + 1]), w, acc[m][p]); });
      });
    }
  }
}

// Writes rows of a panel as f32, [rows][16].
template <typename T>
HWY_INLINE void widen_rows(const T* panel, std::size_t stride, int rows, float* to) {
  for (int k = 0; k < rows; ++k, to += kLanes16)
    if constexpr (kPaired<T>)
      store16(k % 2 == 0 ? load_even(panel + k * stride) : load_odd(panel + (k - 1) * stride), to);
    else
      store16(load16(panel + k * stride), to);
}

// Prefetches `rows` rows of 16 elements. Blocks are too short, and too far apart, for the processor to predict them.
template <typename T>
HWY_INLINE void prefetch(const T* rows_16, int rows) {
  const auto* bytes = reinterpret_cast<const std::byte*>(rows_16);
  for (std::size_t at = 0; at < rows * kLanes16 * sizeof(T); at += kCacheLine) hwy::Prefetch(bytes + at);
}

// Replaces the products of a row with the keys of the first blocks: if scores have a soft-cap, by its hyperbolic
// tangents (Scoring), and the first `hidden` ones, which are outside the row's window, by -inf.
template <typename T>
HWY_NOINLINE void squash_and_hide(const Scoring& scoring, const Span<T>& span, int blocks, int hidden, float* row) {
  const V16 squash = set16(scoring.squash);
  for (int b = 0; scoring.squash != 0 && b < blocks; ++b) {
    float* const at = row + b * kKvBlock;
    store16(tanh16(mul(load16(at), Span<T>::kScaled ? mul(squash, load16(span.scales[b])) : squash)), at);
  }
  for (int b = 0; b * kKvBlock < hidden; ++b) {
    float* const at = row + b * kKvBlock;
    store16(lanes_from(load16(at), hidden - b * kKvBlock, -kInfinity), at);
  }
}

// Turns products q . k_j of a row, the first `seen` of them, into e^(s - m), where s is a product scaled, or -inf if it
// is not seen, and m the largest. With `kScaled`, keys have scales of their own. Returns {m, their sum}.
template <bool kScaled, typename T>
HWY_INLINE Running exponentiate(const Span<T>& span, float scale_of_all, int blocks, int seen, float* row) {
  const V16 scale = set16(scale_of_all);
  V16 largest = set16(-kInfinity);
  for (int b = 0; b < blocks; ++b) {
    V16 s = mul(load16(row + b * kKvBlock), kScaled ? mul(scale, load16(span.scales[b])) : scale);
    if (seen < (b + 1) * kKvBlock) s = first_lanes(s, seen - b * kKvBlock, -kInfinity);
    store16(s, row + b * kKvBlock);
    largest = max(largest, s);
  }
  const float m = max_lane(largest);
  V16 sum = zero16();
  for (int b = 0; b < blocks; ++b) {
    const V16 e = exp16(sub(load16(row + b * kKvBlock), set16(m)));
    store16(e, row + b * kKvBlock);
    sum = add(sum, e);
  }
  return {m, sum_lanes(sum)};
}

// The factors of the outputs of the spans before (keep), and of those of this span (take).
struct SpanFactors {
  float keep, take;
};

// Returns the natural logarithm of the base of scores.
inline float score_unit(const KvShape& shape) {
  return shape.attention == AttentionType::kBF16 ? 0.693147181f : 1.0f;
}

// Merges the softmax of a span into tile.running, for each row, and returns the factors of the outputs.
HWY_INLINE void merge_running(AttentionTile& tile, const Running* span, SpanFactors* factors) {
  static_assert(2 * AttentionTile::kMaxRows <= kLanes16);
  HWY_ALIGN float e[kLanes16] = {};
  for (int r = 0; r < tile.rows; ++r) {
    const float largest = std::max(tile.running[r].largest, span[r].largest);
    e[2 * r] = tile.running[r].largest - largest;
    e[2 * r + 1] = span[r].largest - largest;
    tile.running[r].largest = largest;
  }
  store16(exp16(mul(load16(e), set16(score_unit(*tile.shape)))), e);
  for (int r = 0; r < tile.rows; ++r) {
    factors[r] = {e[2 * r], e[2 * r + 1]};
    tile.running[r].sum = tile.running[r].sum * factors[r].keep + span[r].sum * factors[r].take;
  }
}

// Leaves the softmax of a span among the parts, if the tile has parts, or merges it.
HWY_INLINE void leave_or_merge(AttentionTile& tile, int span, const Running* here, SpanFactors* factors) {
  if (tile.parts != nullptr)
    std::copy_n(here, tile.rows, &tile.part(span, 0));
  else
    merge_running(tile, here, factors);
}

// Turns the products with the keys of the first blocks into the weights of their values, which are not normalised yet.
// They are zero for a query that sees nothing of the span.
template <typename T>
HWY_INLINE void weigh_span(AttentionTile& tile, const Span<T>& span, int blocks, float* weights, SpanFactors* factors) {
  Running here[AttentionTile::kMaxRows];
  for (int r = 0; r < tile.rows; ++r) {
    float* row = weights + r * kAttentionSpan;
    if (!tile.sees(r, span.first)) {
      std::fill(row, row + blocks * kKvBlock, 0.0f);
      continue;
    }
    const Scoring& scoring = *tile.scoring;
    const int hidden = tile.hidden(r, span.first), seen = tile.seen(r, span.first);
    if (scoring.squash != 0 || hidden > 0) squash_and_hide(scoring, span, blocks, hidden, row);
    here[r] = scoring.squash != 0 ? exponentiate<false>(span, scoring.scale, blocks, seen, row)
                                  : exponentiate<Span<T>::kScaled>(span, scoring.scale, blocks, seen, row);
    if constexpr (Span<T>::kScaled)
      for (int b = 0; b < blocks; ++b) {
        float* w = row + b * kKvBlock;
        store16(mul(load16(w), load16(span.scales[b] + kKvBlock)), w);
      }
  }
  leave_or_merge(tile, span.index, here, factors);
}

HWY_INLINE void merge_outputs(V16 span, const SpanFactors& factors, float* out, int columns) {
  const V16 before = columns >= kLanes16 ? load16(out) : load_first(out, columns);
  const V16 after = fma(span, set16(factors.take), mul(before, set16(factors.keep)));
  columns >= kLanes16 ? store16(after, out) : store_first(after, out, columns);
}

// Calls f.operator()<rows>() with a constant number of rows.
template <int kRows = AttentionTile::kMaxRows, typename F>
HWY_INLINE void with_rows(int rows, F&& f) {
  if (rows == kRows) return f.template operator()<kRows>();
  if constexpr (kRows > 1) with_rows<kRows - 1>(rows, f);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
