// Computes a span for many tiles of one KV head, as in prefill. Keys and values are widened once, into a buffer that
// stays in a cache while all tiles read it.

#if defined(FOE_KERNELS_ATTENTION_SHARE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ATTENTION_SHARE_INL_H_
#undef FOE_KERNELS_ATTENTION_SHARE_INL_H_
#else
#define FOE_KERNELS_ATTENTION_SHARE_INL_H_
#endif

#include <span>

#include "base/aligned.h"
#include "kernels/attention/span-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// How many panels a tile is multiplied with at a time. With the registers of AVX-512, the rows of a tile times one
// panel are too few chains of multiply-adds to hide their latency.
constexpr int kSharedPanels = kVecs == 1 ? 2 : 1;

// The tiles of a task, and their memory during a span. Queries and outputs are copied, because those of consecutive
// tokens are so far apart that they displace each other in the first-level cache.
struct SharingTiles {
  std::span<AttentionTile> tiles;
  AlignedBuffer<float> queries;        // [tile][row][C]
  AlignedBuffer<float> panels;         // of keys [kSharedPanels][C][16], or of values [kSharedPanels][span][16]
  AlignedBuffer<float> weights;        // [tile][row][span]
  AlignedBuffer<SpanFactors> factors;  // [tile][row]
  AlignedBuffer<float> outputs;        // [Wp / 16][tile][row][16]

  explicit SharingTiles(std::span<AttentionTile> tiles_)
      : tiles(tiles_),
        queries(rows() * shape().key_width),
        panels(static_cast<std::size_t>(kSharedPanels * std::max(shape().key_width, kAttentionSpan)) * kLanes16),
        weights(rows() * kAttentionSpan),
        factors(rows()),
        outputs(AlignedBuffer<float>::zeroed(rows() * shape().padded_values())) {
    const int C = shape().key_width;
    float* to = queries.data();
    for (AttentionTile& tile : tiles)
      for (int r = 0; r < tile.rows; ++r, to += C) {
        std::copy_n(tile.q[r], C, to);
        tile.q[r] = to;
      }
  }

  const KvShape& shape() const { return *tiles.front().shape; }
  std::size_t rows() const { return tiles.size() * AttentionTile::kMaxRows; }
  std::size_t first_row(std::size_t tile) const { return tile * AttentionTile::kMaxRows; }
  float* weights_of(std::size_t tile) { return weights.data() + first_row(tile) * kAttentionSpan; }
  SpanFactors* factors_of(std::size_t tile) { return factors.data() + first_row(tile); }
  float* outputs_of(std::size_t tile, int column) {
    return outputs.data() + (column / kLanes16 * rows() + first_row(tile)) * kLanes16;
  }
};

// out[r * out_stride + 16 p + (0..15)] = a[r] [depth] times panel p; panels are `room` rows apart. Not inlined, because
// inside other code the accumulators would not all stay in registers.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_by_panels(int depth, const float* const* a, const float* panels, int room, float* out,
                                     std::size_t out_stride) {
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  multiply_tile<kRows, kPanels, true>(depth, a, 1, panels, kLanes16, static_cast<std::size_t>(room) * kLanes16, acc);
  store_tile(acc, out, out_stride);
}

// Multiplies all tiles that see block b with its keys, and with those of the kPanels - 1 blocks after it.
template <int kPanels, typename T>
void multiply_keys(SharingTiles& s, const Span<T>& span, int b) {
  const int C = s.shape().key_width;
  for (int p = 0; p < kPanels; ++p) widen_rows(span.keys_C16[b + p], kLanes16, C, s.panels.data() + p * C * kLanes16);
  for (std::size_t i = 0; i < s.tiles.size(); ++i) {
    const AttentionTile& tile = s.tiles[i];
    if (span.count_for(tile) <= b * kKvBlock) continue;
    with_rows(tile.rows, [&]<int kRows>() {
      multiply_by_panels<kRows, kPanels>(C, tile.q, s.panels.data(), C, s.weights_of(i) + b * kKvBlock, kAttentionSpan);
    });
  }
}

// Computes columns c .. c + 16 kPanels of the span's outputs, for all tiles that see the span.
template <int kPanels, typename T>
void combine_columns(SharingTiles& s, const Span<T>& span, int c) {
  for (int p = 0; p < kPanels; ++p)
    for (int b = 0; b < span.blocks; ++b)
      widen_rows(span.value_panel(b, c + p * kLanes16), span.value_stride(s.shape()), kKvBlock,
                 s.panels.data() + (p * kAttentionSpan + b * kKvBlock) * kLanes16);
  for (std::size_t i = 0; i < s.tiles.size(); ++i) {
    const AttentionTile& tile = s.tiles[i];
    const int count = span.count_for(tile);
    if (count <= 0) continue;
    const float* weights[AttentionTile::kMaxRows];
    for (int r = 0; r < tile.rows; ++r) weights[r] = s.weights_of(i) + r * kAttentionSpan;
    HWY_ALIGN float outputs[AttentionTile::kMaxRows][kPanels][kLanes16];
    with_rows(tile.rows, [&]<int kRows>() {
      multiply_by_panels<kRows, kPanels>(count, weights, s.panels.data(), kAttentionSpan, outputs[0][0],
                                         kPanels * kLanes16);
    });
    for (int p = 0; p < kPanels; ++p) {
      float* const before = s.outputs_of(i, c + p * kLanes16);
      for (int r = 0; r < tile.rows; ++r)
        if (tile.sees(r, span.first))
          merge_outputs(load16(outputs[r][p]), s.factors_of(i)[r], before + r * kLanes16, kLanes16);
    }
  }
}

// Calls run.operator()<panels>(first) until all panels are done, with as many at a time as possible.
template <typename Run>
void for_shared_panels(int panels, Run&& run) {
  int p = 0;
  for (; p + kSharedPanels <= panels; p += kSharedPanels) run.template operator()<kSharedPanels>(p);
  for (; p < panels; ++p) run.template operator()<1>(p);
}

template <typename T>
void share_span(SharingTiles& s, const AttentionTile& widest, int index) {
  const Span<T> span(widest, index);
  const int width = s.shape().padded_values();
  for_shared_panels(span.blocks, [&]<int kPanels>(int b) {
    for (int p = b; p < b + kPanels; ++p) {
      // These arrive by the time that the next panels are widened.
      if (p + kPanels < span.blocks) prefetch(span.keys_C16[p + kPanels], s.shape().key_width);
      prefetch(span.values_16C[p], width);
    }
    multiply_keys<kPanels>(s, span, b);
  });
  for (std::size_t i = 0; i < s.tiles.size(); ++i)
    if (const int count = span.count_for(s.tiles[i]); count > 0)
      weigh_span(s.tiles[i], span, blocks_of(count), s.weights_of(i), s.factors_of(i));
  if (index + 1 < widest.span_end) prefetch(Span<T>(widest, index + 1).keys_C16[0], s.shape().key_width);
  for_shared_panels(width / kLanes16, [&]<int kPanels>(int p) { combine_columns<kPanels>(s, span, p * kLanes16); });
}

template <typename T>
void share_spans(std::span<AttentionTile> tiles) {
  SharingTiles s(tiles);
  const AttentionTile& widest = tiles.front();  // the first tile has the last rows
  for (int i = tiles.back().span_begin; i < widest.span_end; ++i) share_span<T>(s, widest, i);
  for (std::size_t i = 0; i < tiles.size(); ++i)
    for (int r = 0; r < tiles[i].rows; ++r) {
      const V16 sum = set16(tiles[i].running[r].sum);
      for_each16(s.shape().value_width, [&](int c, auto, auto store) {
        store(div(load16(s.outputs_of(i, c) + r * kLanes16), sum), tiles[i].out[r] + c);
      });
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
