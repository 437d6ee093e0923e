// Computes spans for attention in bf16 with vectors, in the order of tile registers (bf16_dot-inl.h). Decode uses this
// everywhere, and prefill where there are no tile registers.

#if defined(FOE_KERNELS_ATTENTION_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ATTENTION_BF16_INL_H_
#undef FOE_KERNELS_ATTENTION_BF16_INL_H_
#else
#define FOE_KERNELS_ATTENTION_BF16_INL_H_
#endif

#include <span>

#include "base/aligned.h"
#include "kernels/attention/stream-inl.h"
#include "kernels/formats/bf16_weight-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr int kBlockLines = kKvBlock / 2;              // lines of 16 columns of a block's values
constexpr int kWeightRow = kAttentionSpan + kLanes16;  // a query's weights, and zeros that sum_weights() reads

// Returns the sum of a query's `count` weights, in the order of a product with ones. Zeros must follow them.
HWY_INLINE float sum_weights(const float* weights, int count) {
  const hn::FixedTag<float, 4> d;  // two of its lanes are the two chains
  float sum = 0;
  for (int begin = 0; begin < count; begin += kDotDepth) {
    auto chains = hn::Zero(d);
    for (int k = begin; k < begin + kDotDepth; k += 2) chains = hn::Add(chains, hn::LoadU(d, weights + k));
    HWY_ALIGN float both[4];
    hn::Store(chains, d, both);
    sum += both[0] + both[1];
  }
  return sum;
}

// Like weigh_span(), but rounds the weights to bf16, appends zeros after those of the keys that are seen, and sums the
// rounded weights.
HWY_INLINE void weigh_rounded(AttentionTile& tile, const Span<BF16>& span, float (*weights)[kWeightRow],
                              SpanFactors* factors) {
  Running here[AttentionTile::kMaxRows];
  const Scoring& scoring = *tile.scoring;
  const float scale = scoring.scale;
  for (int r = 0; r < tile.rows; ++r) {
    float* row = weights[r];
    const int hidden = tile.hidden(r, span.first), seen = tile.sees(r, span.first) ? tile.seen(r, span.first) : 0;
    const int blocks = blocks_of(seen);
    std::fill(row + blocks * kKvBlock, row + kWeightRow, 0.0f);
    if (seen == 0) continue;
    if (scoring.squash != 0 || hidden > 0) squash_and_hide(scoring, span, blocks, hidden, row);
    V16 largest = set16(-kInfinity);
    for (int b = 0; b < blocks; ++b) {
      float* at = row + b * kKvBlock;
      if (seen < (b + 1) * kKvBlock) store16(first_lanes(load16(at), seen - b * kKvBlock, -kInfinity), at);
      largest = max(largest, load16(at));
    }
    here[r].largest = max_lane(largest) * scale;
    for (int b = 0; b < blocks; ++b) {
      float* at = row + b * kKvBlock;
      store16(round_to_bf16(weight16(load16(at), set16(scale), set16(-here[r].largest))), at);
    }
    here[r].sum = sum_weights(row, seen);
  }
  leave_or_merge(tile, span.index, here, factors);
}

// Extends the chains over the v-th vector of `lines` lines of each panel. With each line that is read, the lines at the
// same place of `ahead` are prefetched.
template <int kRows, int kPanels, int kAhead>
HWY_INLINE void extend_lines(int v, int lines, const float* const (&x)[kRows], const BF16* const (&panels)[kPanels],
                             const BF16* const (&ahead)[kAhead], Chains<VF> (&chains)[kRows][kPanels]) {
  for (int i = 0; i < lines; ++i) {
    if (v == 0)
      for (const BF16* a : ahead) hwy::Prefetch(a + i * kPairLine);
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const VF even = load_even(panels[p] + i * kPairLine, v), odd = load_odd(panels[p] + i * kPairLine, v);
      repeat<kRows>([&](auto m) FOE_INLINE {
        extend(chains[m][p], hn::Set(DF(), x[m][2 * i]), hn::Set(DF(), x[m][2 * i + 1]), even, odd);
      });
    });
  }
}

template <int kRows, int kPanels>
HWY_INLINE void begin_all(Chains<VF> (&chains)[kRows][kPanels]) {
  repeat<kRows>([&](auto m) FOE_INLINE { repeat<kPanels>([&](auto p) FOE_INLINE { chains[m][p] = begin_chains(); }); });
}
template <int kRows, int kPanels>
HWY_INLINE void take_all(const Chains<VF> (&chains)[kRows][kPanels], VF (&sums)[kRows][kPanels]) {
  repeat<kRows>([&](auto m) FOE_INLINE {
    repeat<kPanels>([&](auto p) FOE_INLINE { sums[m][p] = take(sums[m][p], chains[m][p]); });
  });
}
template <int kRows, int kPanels>
HWY_INLINE void clear_all(VF (&sums)[kRows][kPanels]) {
  repeat<kRows>([&](auto m) FOE_INLINE { repeat<kPanels>([&](auto p) FOE_INLINE { sums[m][p] = hn::Zero(DF()); }); });
}

// Returns how many panels to multiply at a time, so that their chains, two for each row, hide the latency of
// multiply-adds.
constexpr int paired_panels_for(int rows) {
  const int panels = rows == 1 ? 4 : rows == 2 ? 2 : 1;
  return kManyRegisters && rows > 1 && rows <= 4 ? 2 * panels : panels;
}

// Multiplies with the keys of some blocks. Prefetches like multiply_keys().
template <int kRows, int kBlocks>
HWY_NOINLINE void multiply_paired_keys(const AttentionTile& tile, const Span<BF16>& span, int begin,
                                       float (*products)[kWeightRow]) {
  const int lines = tile.shape->key_rows() / 2;
  const BF16* next[kBlocks];
  for (int b = 0; b < kBlocks; ++b) next[b] = span.keys_C16[std::min(begin + kBlocks + b, span.blocks - 1)];
  for (int v = 0; v < kVecs; ++v) {
    VF sums[kRows][kBlocks];
    clear_all(sums);
    for (int line = 0; line < lines; line += kDotLines) {
      const float* q[kRows];
      const BF16 *keys[kBlocks], *ahead[2 * kBlocks];
      repeat<kRows>([&](auto r) FOE_INLINE { q[r] = tile.q[r] + 2 * line; });
      repeat<kBlocks>([&](auto b) FOE_INLINE {
        keys[b] = span.keys_C16[begin + b] + line * kPairLine;
        ahead[b] = span.values_16C[begin + b] + line * kPairLine;
        ahead[kBlocks + b] = next[b] + line * kPairLine;
      });
      Chains<VF> chains[kRows][kBlocks];
      begin_all(chains);
      extend_lines(v, std::min(kDotLines, lines - line), q, keys, ahead, chains);
      take_all(chains, sums);
    }
    repeat<kRows>([&](auto r) FOE_INLINE {
      repeat<kBlocks>([&](auto b) FOE_INLINE {
        hn::StoreU(sums[r][b], DF(), products[r] + (begin + b) * kKvBlock + v * kVecLanes);
      });
    });
  }
}

// Columns c .. c + 16 kPanels of a span's outputs. Meanwhile the next span's keys are on the way.
template <int kRows, int kPanels>
HWY_NOINLINE void combine_paired_values(const AttentionTile& tile, const Span<BF16>& span, const Span<BF16>& next,
                                        float (*weights)[kWeightRow], const SpanFactors* factors, int c) {
  HWY_ALIGN float outputs[kPanels][kRows][kLanes16];
  for (int v = 0; v < kVecs; ++v) {
    VF sums[kRows][kPanels];
    clear_all(sums);
    for (int first = 0; first < span.blocks; first += 2) {
      Chains<VF> chains[kRows][kPanels];
      begin_all(chains);
      for (int b = first; b < std::min(first + 2, span.blocks); ++b) {
        const float* w[kRows];
        const BF16 *values[kPanels], *ahead[kPanels];
        const BF16* coming = b < next.blocks ? next.keys_C16[b] : span.keys_C16[b];
        repeat<kRows>([&](auto r) FOE_INLINE { w[r] = weights[r] + b * kKvBlock; });
        repeat<kPanels>([&](auto p) FOE_INLINE {
          values[p] = span.value_panel(b, c + p * kLanes16);
          ahead[p] = coming + (c + p * kLanes16) * kKvBlock;
        });
        // The second position of the last pair may not be there yet; then it is zero.
        const int lines = std::min(kBlockLines, (span.count - b * kKvBlock + 1) / 2);
        extend_lines(v, lines, w, values, ahead, chains);
      }
      take_all(chains, sums);
    }
    repeat<kRows>([&](auto r) FOE_INLINE {
      repeat<kPanels>([&](auto p) FOE_INLINE { hn::StoreU(sums[r][p], DF(), outputs[p][r] + v * kVecLanes); });
    });
  }
  for (int p = 0; p < kPanels; ++p) take_outputs(tile, span, factors, c + p * kLanes16, outputs[p]);
}

template <int kRows>
void stream_paired_span(AttentionTile& tile, const Span<BF16>& span, const Span<BF16>& next) {
  constexpr int kPanels = paired_panels_for(kRows);
  HWY_ALIGN float weights[kRows][kWeightRow];
  SpanFactors factors[kRows];
  int b = 0;
  for (; b + kPanels <= span.blocks; b += kPanels) multiply_paired_keys<kRows, kPanels>(tile, span, b, weights);
  for (; b < span.blocks; ++b) multiply_paired_keys<kRows, 1>(tile, span, b, weights);
  weigh_rounded(tile, span, weights, factors);
  const int width = tile.shape->padded_values();
  int c = 0;
  for (; c + kPanels * kLanes16 <= width; c += kPanels * kLanes16)
    combine_paired_values<kRows, kPanels>(tile, span, next, weights, factors, c);
  for (; c < width; c += kLanes16) combine_paired_values<kRows, 1>(tile, span, next, weights, factors, c);
}

// Owns copies of the queries of tiles, rounded to bf16, in rows of even length.
struct RoundedQueries {
  AlignedBuffer<float> rows;

  explicit RoundedQueries(std::span<AttentionTile> tiles) {
    const int C = tiles.front().shape->key_width, stride = (C + kLanes16 - 1) / kLanes16 * kLanes16;
    rows = AlignedBuffer<float>(tiles.size() * AttentionTile::kMaxRows * stride);
    float* to = rows.data();
    for (AttentionTile& tile : tiles)
      for (int r = 0; r < tile.rows; ++r, to += stride) {
        for_each16(C, [&](int c, auto load, auto) { store16(round_to_bf16(load(tile.q[r] + c)), to + c); });
        tile.q[r] = to;
      }
  }
};

// Computes the spans of all tiles of a task, each span for all tiles while it is in a cache. The first tile sees the
// most keys. Before the last span ends, the first keys of `following` are prefetched.
inline void stream_paired_spans(std::span<AttentionTile> tiles, const AttentionTile& following) {
  const RoundedQueries queries(tiles);
  for (const AttentionTile& tile : tiles)
    if (tile.parts == nullptr) begin_outputs(tile);
  const AttentionTile& widest = tiles.front();
  for (int i = tiles.back().span_begin; i < widest.span_end; ++i)
    for (std::size_t j = 0; j < tiles.size(); ++j) {
      AttentionTile& tile = tiles[j];
      if (i < tile.span_begin || i >= tile.span_end) continue;
      const Span<BF16> next = j + 1 < tiles.size()      ? Span<BF16>(tiles[j + 1], i)
                              : i + 1 < widest.span_end ? Span<BF16>(widest, i + 1)
                                                        : Span<BF16>(following, following.span_begin);
      with_rows(tile.rows, [&]<int kRows>() { stream_paired_span<kRows>(tile, Span<BF16>(tile, i), next); });
    }
  for (const AttentionTile& tile : tiles)
    if (tile.parts == nullptr) normalise_outputs(tile);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
