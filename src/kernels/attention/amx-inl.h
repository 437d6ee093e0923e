// Computes spans for attention in bf16 with tile registers (kernels/products/amx.h), for many rows of one KV head, as
// in prefill. The bits are those of bf16-inl.h.
//
// The rows of a task are in groups of 16, as a tile has 16 rows. In each span, first all groups compute their scores S
// = Q K^T with tiles, and weights P from these with vectors, while the keys are in the first-level cache. Then all
// compute P V with tiles, and merge it into their outputs with vectors, while the values are in the cache. Tiles
// multiply for one group before vectors work on the group before it, so that vectors do not wait. Mixing the
// instructions of both more finely takes longer (on Emerald Rapids 16 products and 128 exponentials take 0.30 us one
// after the other, and 0.33 us with a product after each eighth exponential).

#if defined(FOE_KERNELS_ATTENTION_AMX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ATTENTION_AMX_INL_H_
#undef FOE_KERNELS_ATTENTION_AMX_INL_H_
#else
#define FOE_KERNELS_ATTENTION_AMX_INL_H_
#endif

#include <vector>

#include "kernels/attention/bf16-inl.h"
#include "kernels/products/amx.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr int kGroupRows = amx::kTileRows;
constexpr int kTileBf16 = amx::kTileBytes / 2, kTileF32 = amx::kTileBytes / 4;  // elements
constexpr int kWeightTiles = kAttentionSpan / kDotDepth;                        // tiles of a group's weights

// Stores two vectors as 32 bf16, `low` first.
HWY_INLINE void store_bf16(V16 low, V16 high, BF16* to) {
  auto both = low.v[0].raw;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(low.v[0].raw), "v"(high.v[0].raw));
  hn::StoreU(hn::Vec<DF>{both}, DF(), reinterpret_cast<float*>(to));
}

// Returns the largest lane of each of sixteen rows s(0) .. s(15), that of row r in lane r.
template <typename F>
HWY_INLINE V16 largest_of_rows(F&& s) {
  // Each step puts the maxima of two vectors into one: of halves, of quarters, of pairs of lanes, and of lanes.
  const auto quarters = [&](int first) HWY_ATTR {
    const auto halves = [&](int i, int j) HWY_ATTR {
      const auto a = s(i).v[0].raw, b = s(j).v[0].raw;
      return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    };
    const auto a = halves(first, first + 4), b = halves(first + 8, first + 12);
    return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  const auto pairs = [&](int first) HWY_ATTR {
    const auto a = quarters(first), b = quarters(first + 1);
    return _mm512_max_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  };
  const auto a = pairs(0), b = pairs(2);
  return V16{{VF{_mm512_max_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd))}}};
}

class TiledSpans {
 public:
  explicit TiledSpans(std::span<AttentionTile> tiles)
      : shape_(*tiles.front().shape),
        widest_(tiles.front()),
        scoring_(*tiles.front().scoring),
        span_begin_(tiles.back().span_begin),
        depth_((shape_.key_width + kDotDepth - 1) / kDotDepth),
        panels_(shape_.padded_values() / kLanes16) {
    // The first tile has the last rows of the sequence.
    for (auto tile = tiles.rbegin(); tile != tiles.rend(); ++tile)
      for (int r = 0; r < tile->rows; ++r)
        rows_.push_back({tile->q[r], tile->out[r], tile->position[r], tile->first[r], &tile->running[r]});
    groups_ = static_cast<int>(rows_.size() + kGroupRows - 1) / kGroupRows;
    const std::size_t groups = groups_, panels = panels_, depth = depth_;
    queries_ = AlignedBuffer<BF16>(groups * depth * kTileBf16);
    keys_ = AlignedBuffer<BF16>(kBlocksPerSpan * depth * kTileBf16);
    values_ = AlignedBuffer<BF16>(panels * kWeightTiles * kTileBf16);
    scores_ = AlignedBuffer<float>(2 * kBlocksPerSpan * kTileF32);
    weights_ = AlignedBuffer<BF16>(groups * kWeightTiles * kTileBf16);
    products_ = AlignedBuffer<float>(2 * (panels + 1) * kTileF32);
    outputs_ = AlignedBuffer<float>::zeroed(groups * (panels + 1) * kTileF32);
    largest_ = AlignedBuffer<float>(groups * kGroupRows);
    span_largest_ = AlignedBuffer<float>(groups * kGroupRows);
    for (int i = 0; i < groups_ * kGroupRows; ++i) {
      largest_.data()[i] = row(i).running->largest;
      std::fill_n(sum(i), kLanes16, row(i).running->sum);
    }
    for (int g = 0; g < groups_; ++g) pack_queries(g);
  }

  void run() {
    const amx::Tiles registers;
    alignas(64) BF16 ones[kTileBf16];
    std::fill(std::begin(ones), std::end(ones), to_bf16(1.0f));
    amx::load<7>(ones);
    for (int span = span_begin_; span < widest_.span_end; ++span) take_span(span);
    normalise();
  }

 private:
  struct Row {
    const float* q;
    float* out;
    int position, first;
    Running* running;  // before the first span, and in the end over all
  };

  const Row& row(int i) const { return rows_[std::min<std::size_t>(i, rows_.size() - 1)]; }
  // Returns where 16 copies of a row's sum of weights so far stand.
  float* sum(int i) {
    return outputs_.data() + (static_cast<std::size_t>(i / kGroupRows * (panels_ + 1) + panels_)) * kTileF32 +
           i % kGroupRows * kLanes16;
  }
  // Of the span, a row sees the keys [keys_hidden, keys_seen).
  int keys_hidden(int i) const { return row(i).first - span_ * kAttentionSpan; }
  int keys_seen(int i) const { return std::min(kAttentionSpan, row(i).position + 1 - span_ * kAttentionSpan); }
  // Of a group the fewest that are hidden of a row, the most, and the most that are seen.
  int least_hidden(int group) const { return keys_hidden(group * kGroupRows); }
  int most_hidden(int group) const { return keys_hidden(group * kGroupRows + kGroupRows - 1); }
  int most_seen(int group) const { return keys_seen(group * kGroupRows + kGroupRows - 1); }
  float* scores(int group) { return scores_.data() + group % 2 * kBlocksPerSpan * kTileF32; }
  BF16* weights(int group) { return weights_.data() + static_cast<std::size_t>(group * kWeightTiles) * kTileBf16; }
  float* products(int group) {
    return products_.data() + static_cast<std::size_t>(group % 2 * (panels_ + 1)) * kTileF32;
  }

  void pack_queries(int group) {
    for (int t = 0; t < depth_; ++t)
      for (int r = 0; r < kGroupRows; ++r) {
        const std::size_t i = static_cast<std::size_t>(group * kGroupRows + r);
        const int begin = t * kDotDepth, count = i < rows_.size() ? shape_.key_width - begin : 0;
        const auto load = [&](int c) HWY_ATTR {
          const float* at = rows_[i].q + begin + c;
          return count >= c + kLanes16 ? load16(at) : count > c ? load_first(at, count - c) : zero16();
        };
        store_bf16(load(0), load(kLanes16),
                   queries_.data() + static_cast<std::size_t>(group * depth_ + t) * kTileBf16 + r * kDotDepth);
      }
  }

  // Copies a span, because blocks are so far apart that they displace each other in the first-level cache.
  void load_span(int index) {
    span_ = index;
    const Span<BF16> span(widest_, index);
    const int key_lines = shape_.key_rows() / 2, room = depth_ * kDotLines;
    for (int b = 0; b < span.blocks; ++b) {
      BF16* const to = keys_.data() + b * depth_ * kTileBf16;
      copy_lines(span.keys_C16[b], key_lines, to);
      std::fill(to + key_lines * kPairLine, to + room * kPairLine, BF16{0});
    }
    BF16* to = values_.data();
    for (int p = 0; p < panels_; ++p)
      for (int b = 0; b < kBlocksPerSpan; ++b, to += kBlockLines * kPairLine) {
        // The second position of the last pair may not be there yet; then it is zero. What follows is not zero, so it
        // is overwritten.
        const int lines = std::clamp((span.count - b * kKvBlock + 1) / 2, 0, kBlockLines);
        if (lines > 0) copy_lines(span.value_panel(b, p * kLanes16), lines, to);
        std::fill(to + lines * kPairLine, to + kBlockLines * kPairLine, BF16{0});
      }
  }
  static HWY_INLINE void copy_lines(const BF16* from, int lines, BF16* to) {
    for (int i = 0; i < lines * kPairLine; i += kPairLine)
      store16(load16(reinterpret_cast<const float*>(from + i)), reinterpret_cast<float*>(to + i));
  }

  // Does what merge_running() and merge_outputs() do.
  void merge(int group) {
    HWY_ALIGN float keep[kGroupRows], take[kGroupRows];
    float* const running = largest_.data() + group * kGroupRows;
    const V16 here = load16(span_largest_.data() + group * kGroupRows), largest = max(load16(running), here);
    const V16 unit = set16(score_unit(shape_));
    store16(exp16(mul(sub(load16(running), largest), unit)), keep);
    store16(exp16(mul(sub(here, largest), unit)), take);
    store16(largest, running);
    const float* from = products(group);
    float* to = outputs_.data() + static_cast<std::size_t>(group * (panels_ + 1)) * kTileF32;
    for (int p = 0; p < panels_; ++p)
      for (int r = 0; r < kGroupRows; ++r, from += kLanes16, to += kLanes16)
        merge_outputs(load16(from), {keep[r], take[r]}, to, kLanes16);
    for (int r = 0; r < kGroupRows; ++r, from += kLanes16, to += kLanes16)
      store16(add(mul(load16(to), set16(keep[r])), mul(load16(from), set16(take[r]))), to);
  }

  void take_span(int index) {
    load_span(index);
    int first = 0,
        end = groups_;  // the groups [first, end) see the span: it has begun, and their windows have not ended
    while (most_seen(first) <= 0) ++first;
    while (least_hidden(end - 1) >= kAttentionSpan) --end;
    multiply_keys(first);
    for (int g = first; g < end; ++g) {
      if (g + 1 < end) multiply_keys(g + 1);
      weigh(g);
    }
    multiply_values(first);
    for (int g = first; g < end; ++g) {
      if (g + 1 < end) multiply_values(g + 1);
      merge(g);
    }
  }

  // Multiplies a group's queries with all keys, two blocks at a time.
  void multiply_keys(int group) {
    const int blocks = blocks_of(most_seen(group));
    for (int b = 0; b < blocks; b += 2) {
      const bool two = b + 1 < blocks;
      const BF16* const q = queries_.data() + static_cast<std::size_t>(group * depth_) * kTileBf16;
      const BF16* const first = keys_.data() + b * depth_ * kTileBf16;
      const BF16* const second = two ? first + depth_ * kTileBf16 : first;
      amx::zero<0>();
      amx::zero<1>();
      for (int t = 0; t < depth_; ++t) {
        amx::load<2>(q + t * kTileBf16);
        amx::load<3>(first + t * kTileBf16);
        amx::multiply_bf16<0, 2, 3>();
        amx::load<4>(second + t * kTileBf16);
        amx::multiply_bf16<1, 2, 4>();
      }
      amx::store<0>(scores(group) + b * kTileF32);
      if (two) amx::store<1>(scores(group) + (b + 1) * kTileF32);
    }
  }

  // Computes a group's weights from its scores.
  void weigh(int group) {
    if (scoring_.squash != 0 || most_hidden(group) > 0) squash_and_hide_rows(group);
    const bool masked = keys_seen(group * kGroupRows) < kAttentionSpan || most_hidden(group) >= kAttentionSpan;
    masked ? weigh_rows<true>(group) : weigh_rows<false>(group);
  }
  // As squash_and_hide(), of all rows.
  void squash_and_hide_rows(int group) {
    float* at = scores(group);
    const V16 squash = set16(scoring_.squash);
    for (int b = 0; b < blocks_of(most_seen(group)); ++b)
      for (int r = 0; r < kGroupRows; ++r, at += kLanes16) {
        V16 s = load16(at);
        if (scoring_.squash != 0) s = tanh16(mul(s, squash));
        store16(lanes_from(s, keys_hidden(group * kGroupRows + r) - b * kKvBlock, -kInfinity), at);
      }
  }
  template <bool kMasked>
  HWY_INLINE void weigh_rows(int group) {
    const float* const s = scores(group);
    // Returns 16 scores of row r with block b, of which it sees the first `seen`.
    const auto score = [&](int r, int b, int seen) HWY_ATTR {
      const V16 all = load16(s + b * kTileF32 + r * kLanes16);
      return kMasked ? first_lanes(all, seen - b * kKvBlock, -kInfinity) : all;
    };
    const auto seen_by = [&](int r) {
      if (!kMasked) return kAttentionSpan;
      return keys_hidden(group * kGroupRows + r) < kAttentionSpan ? keys_seen(group * kGroupRows + r) : 0;
    };
    float* const largest = span_largest_.data() + group * kGroupRows;
    const V16 scale = set16(scoring_.scale);
    store16(mul(largest_of_rows([&](int r) HWY_ATTR {
                  const int seen = seen_by(r);
                  const auto larger = [&](int b) HWY_ATTR { return max(score(r, b, seen), score(r, b + 1, seen)); };
                  return max(max(larger(0), larger(2)), max(larger(4), larger(6)));
                }),
                scale),
            largest);
    for (int r = 0; r < kGroupRows; ++r) {
      const int seen = seen_by(r);
      BF16* const to = weights(group) + r * kDotDepth;
      if (kMasked && seen <= 0) {
        for (int t = 0; t < kWeightTiles; ++t) std::fill_n(to + t * kTileBf16, kDotDepth, BF16{0});
        continue;
      }
      const V16 minus_largest = set16(-largest[r]);
      repeat<kWeightTiles>([&](auto t) FOE_INLINE {
        store_bf16(weight16(score(r, 2 * t, seen), scale, minus_largest),
                   weight16(score(r, 2 * t + 1, seen), scale, minus_largest), to + t * kTileBf16);
      });
    }
  }

  // Multiplies a group's weights with all values and, to sum them, with ones.
  void multiply_values(int group) {
    int p = 0;
    for (; p + 4 <= panels_; p += 4) multiply_value_panels<4>(group, p);
    if (p + 2 <= panels_) multiply_value_panels<2>(group, p), p += 2;
    if (p < panels_) multiply_value_panels<1>(group, p);
  }
  template <int kPanels>
  HWY_INLINE void multiply_value_panels(int group, int p) {
    const int tiles = (most_seen(group) + kDotDepth - 1) / kDotDepth;
    const BF16* const w = weights(group);
    const BF16* const v = values_.data() + p * kWeightTiles * kTileBf16;
    const auto multiply = [&]<int kP>(int t) HWY_ATTR {
      if constexpr (kP < kPanels) {
        amx::load<6>(v + (kP * kWeightTiles + t) * kTileBf16);
        amx::multiply_bf16<kP, 5, 6>();
      }
    };
    amx::zero<0>();
    amx::zero<1>();
    amx::zero<2>();
    amx::zero<3>();
    amx::zero<4>();
    for (int t = 0; t < tiles; ++t) {
      amx::load<5>(w + t * kTileBf16);
      multiply.template operator()<0>(t);
      multiply.template operator()<1>(t);
      multiply.template operator()<2>(t);
      multiply.template operator()<3>(t);
      if (p == 0) amx::multiply_bf16<4, 5, 7>();
    }
    float* const to = products(group) + p * kTileF32;
    amx::store<0>(to);
    if constexpr (kPanels > 1) amx::store<1>(to + kTileF32);
    if constexpr (kPanels > 2) amx::store<2>(to + 2 * kTileF32);
    if constexpr (kPanels > 3) amx::store<3>(to + 3 * kTileF32);
    if (p == 0) amx::store<4>(products(group) + panels_ * kTileF32);
  }

  void normalise() {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      *rows_[i].running = {largest_[i], *sum(static_cast<int>(i))};
      const float* from = outputs_.data() + i / kGroupRows * (panels_ + 1) * kTileF32 + i % kGroupRows * kLanes16;
      const V16 weights = load16(sum(static_cast<int>(i))), zero = set16(sign_of_zero(shape_));
      for (int p = 0; p < panels_; ++p) {
        const V16 y = add(div(load16(from + p * kTileF32), weights), zero);
        const int left = shape_.value_width - p * kLanes16;
        float* const out = rows_[i].out + p * kLanes16;
        left >= kLanes16 ? store16(y, out) : store_first(y, out, left);
      }
    }
  }

  const KvShape& shape_;
  const AttentionTile& widest_;
  const Scoring& scoring_;
  const int span_begin_;
  const int depth_, panels_;  // how many tiles a query takes, and how many panels of 16 columns outputs have
  int groups_ = 0;
  std::vector<Row> rows_;
  AlignedBuffer<BF16> queries_;        // [group][depth][16 rows][32 c]
  int span_ = 0;                       // the span whose keys and values are loaded
  AlignedBuffer<BF16> keys_;           // [block][depth][16 pairs of c][16][2]
  AlignedBuffer<BF16> values_;         // [panel][weight tile][16 pairs of positions][16][2]
  AlignedBuffer<float> scores_;        // [group % 2][block][16 rows][16]
  AlignedBuffer<BF16> weights_;        // [group][weight tile][16 rows][32 positions]
  AlignedBuffer<float> products_;      // [group % 2][panel][16 rows][16], whose last panel has sums of weights
  AlignedBuffer<float> outputs_;       // [group][panel][16 rows][16], likewise
  AlignedBuffer<float> largest_;       // [group][16 rows], over all spans so far
  AlignedBuffer<float> span_largest_;  // [group][16 rows]
};

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3
#endif
