// Spans of bf16 for many rows of one KV head on tiles (kernels/amx.h), as in prefill: with the same bits as
// attention_bf16-inl.h.
//
// The rows of a task stand in groups of 16, the rows of a tile. A group and a span are a unit: scores S = Q K^T on
// tiles, weights P with vectors, products P V on tiles, and their merge into the group's outputs with vectors. While
// vectors make the weights of one unit, tiles multiply for the units before and after it: between any two rows stand a
// few of these products, and the processor takes both together.

#if defined(FOE_KERNELS_ATTENTION_AMX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_ATTENTION_AMX_INL_H_
#undef FOE_KERNELS_ATTENTION_AMX_INL_H_
#else
#define FOE_KERNELS_ATTENTION_AMX_INL_H_
#endif

#include <vector>

#include "kernels/amx.h"
#include "kernels/attention_bf16-inl.h"

#if HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr int kGroupRows = amx::kTileRows;
constexpr int kTileBf16 = amx::kTileBytes / 2, kTileF32 = amx::kTileBytes / 4;  // elements
constexpr int kWeightTiles = kAttentionSpan / kDotDepth;                        // of a group and a span

// Two vectors as 32 bf16, `low` first.
HWY_INLINE void store_bf16(V16 low, V16 high, BF16* to) {
  auto both = low.v[0].raw;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(low.v[0].raw), "v"(high.v[0].raw));
  hn::StoreU(hn::Vec<DF>{both}, DF(), reinterpret_cast<float*>(to));
}

class TiledSpans {
 public:
  explicit TiledSpans(std::span<AttentionTile> tiles)
      : shape_(*tiles.front().shape),
        widest_(tiles.front()),
        scale_(score_scale(shape_.head_dim)),
        depth_((shape_.head_dim + kDotDepth - 1) / kDotDepth),
        panels_(shape_.padded_dim() / kLanes16) {
    // The first tile has the last rows.
    for (auto tile = tiles.rbegin(); tile != tiles.rend(); ++tile)
      for (int r = 0; r < tile->rows; ++r) rows_.push_back({tile->q[r], tile->out[r], tile->position[r]});
    groups_ = static_cast<int>(rows_.size() + kGroupRows - 1) / kGroupRows;
    queries_ = AlignedBuffer<BF16>(static_cast<std::size_t>(groups_ * depth_) * kTileBf16);
    if (!keys_in_place())
      keys_ = AlignedBuffer<BF16>(static_cast<std::size_t>(kKept * kBlocksPerSpan * depth_) * kTileBf16);
    values_ = AlignedBuffer<BF16>(static_cast<std::size_t>(kKept * panels_ * kWeightTiles) * kTileBf16);
    scores_ = AlignedBuffer<float>(kBoth * kBlocksPerSpan * kTileF32);
    weights_ = AlignedBuffer<BF16>(kBoth * kWeightTiles * kTileBf16);
    products_ = AlignedBuffer<float>(static_cast<std::size_t>(panels_ + 1) * kTileF32);
    outputs_ = AlignedBuffer<float>::zeroed(static_cast<std::size_t>(groups_ * (panels_ + 1)) * kTileF32);
    largest_ = AlignedBuffer<float>(static_cast<std::size_t>(groups_) * kGroupRows);
    std::fill(largest_.data(), largest_.data() + largest_.size(), -kInfinity);
    for (int g = 0; g < groups_; ++g) pack_queries(g);
  }

  void run() {
    const amx::Tiles registers;
    alignas(64) BF16 ones[kTileBf16];
    std::fill(std::begin(ones), std::end(ones), to_bf16(1.0f));
    amx::load<7>(ones);
    Unit before, now, next = first_unit(widest_.span_begin);
    multiply_all_keys(next);
    do {
      before = now;
      now = next;
      next = unit_after(now);
      weigh(now, before, next);
      if (before.valid()) merge(before);
    } while (next.valid());
    for (int p = 0; p < value_steps(); ++p) multiply_values(now, p);
    merge(now);
    normalise();
  }

 private:
  // Values and keys of a span are kept while units that read them are in the pipeline, which has three stages.
  static constexpr int kKept = 3, kBoth = 2;

  struct Row {
    const float* q;
    float* out;
    int position;
  };
  struct Unit {
    int span = -1, group = 0, number = 0;
    float largest[kGroupRows];  // of its scores
    bool valid() const { return span >= 0; }
  };

  bool keys_in_place() const { return shape_.head_dim % kDotDepth == 0; }
  const Row& row(int i) const { return rows_[std::min<std::size_t>(i, rows_.size() - 1)]; }
  int last_position(int group) const { return row(group * kGroupRows + kGroupRows - 1).position; }
  int keys_seen(const Unit& u) const {
    return std::min(kAttentionSpan, last_position(u.group) + 1 - u.span * kAttentionSpan);
  }
  float* scores(const Unit& u) { return scores_.data() + u.number % kBoth * kBlocksPerSpan * kTileF32; }
  BF16* weights(const Unit& u) { return weights_.data() + u.number % kBoth * kWeightTiles * kTileBf16; }
  BF16* values(int span) { return values_.data() + span % kKept * panels_ * kWeightTiles * kTileBf16; }
  const BF16* key_tile(const Unit& u, int b) const { return key_blocks_[u.span % kKept][b]; }

  void pack_queries(int group) {
    for (int t = 0; t < depth_; ++t)
      for (int r = 0; r < kGroupRows; ++r) {
        const std::size_t i = static_cast<std::size_t>(group * kGroupRows + r);
        const int begin = t * kDotDepth, count = i < rows_.size() ? shape_.head_dim - begin : 0;
        const auto load = [&](int c) HWY_ATTR {
          const float* at = rows_[i].q + begin + c;
          return count >= c + kLanes16 ? load16(at) : count > c ? load_first(at, count - c) : zero16();
        };
        store_bf16(load(0), load(kLanes16),
                   queries_.data() + static_cast<std::size_t>(group * depth_ + t) * kTileBf16 + r * kDotDepth);
      }
  }

  // Units go over the groups that see a span, which are its last ones.
  Unit first_unit(int span) {
    Unit u;
    if (span >= widest_.span_end) return u;
    u.span = span;
    while (last_position(u.group) < span * kAttentionSpan) ++u.group;
    load_span(span);
    return u;
  }
  Unit unit_after(const Unit& u) {
    Unit next;
    if (u.group + 1 < groups_) {
      next.span = u.span;
      next.group = u.group + 1;
    } else {
      next = first_unit(u.span + 1);
    }
    next.number = u.number + 1;
    return next;
  }

  void load_span(int index) {
    const Span<BF16> span(widest_, index);
    for (int b = 0; b < span.blocks; ++b) {
      const BF16*& block = key_blocks_[index % kKept][b];
      block = span.keys_C16[b];
      if (keys_in_place()) continue;
      const int lines = shape_.key_rows() / 2, room = depth_ * kDotLines;
      BF16* copy = keys_.data() + static_cast<std::size_t>(index % kKept * kBlocksPerSpan + b) * depth_ * kTileBf16;
      std::copy_n(block, lines * kPairLine, copy);
      std::fill_n(copy + lines * kPairLine, (room - lines) * kPairLine, BF16{0});
      block = copy;
    }
    for (int p = 0; p < panels_; ++p) {
      BF16* to = values(index) + p * kWeightTiles * kTileBf16;
      for (int b = 0; b < kBlocksPerSpan; ++b, to += kBlockLines * kPairLine) {
        // The second of the last pair may not be there yet, and is zero; what is behind is not.
        const int lines = std::clamp((span.count - b * kKvBlock + 1) / 2, 0, kBlockLines);
        const auto* from = b < span.blocks ? span.value_panel(b, p * kLanes16) : nullptr;
        for (int i = 0; i < lines; ++i) copy_line(from + i * kPairLine, to + i * kPairLine);
        std::fill(to + lines * kPairLine, to + kBlockLines * kPairLine, BF16{0});
      }
    }
  }
  static HWY_INLINE void copy_line(const BF16* from, BF16* to) {
    store16(load16(reinterpret_cast<const float*>(from)), reinterpret_cast<float*>(to));
  }

  // Products with the keys of two blocks.
  int key_steps(const Unit& u) const { return u.valid() ? (blocks_of(keys_seen(u)) + 1) / 2 : 0; }
  HWY_INLINE void multiply_keys(const Unit& u, int step) {
    const int b = 2 * step;
    const bool two = (b + 1) * kKvBlock < keys_seen(u);
    const BF16* q = queries_.data() + static_cast<std::size_t>(u.group * depth_) * kTileBf16;
    const BF16 *first = key_tile(u, b), *second = two ? key_tile(u, b + 1) : first;
    amx::zero<0>();
    amx::zero<1>();
    for (int t = 0; t < depth_; ++t) {
      amx::load<2>(q + t * kTileBf16);
      amx::load<3>(first + t * kTileBf16);
      amx::multiply_bf16<0, 2, 3>();
      amx::load<4>(second + t * kTileBf16);
      amx::multiply_bf16<1, 2, 4>();
    }
    amx::store<0>(scores(u) + b * kTileF32);
    if (two) amx::store<1>(scores(u) + (b + 1) * kTileF32);
  }
  void multiply_all_keys(const Unit& u) {
    for (int step = 0; step < key_steps(u); ++step) multiply_keys(u, step);
  }

  // Products of the weights with two panels of values, or with one and with ones.
  int value_steps() const { return panels_ / 2 + 1; }
  HWY_INLINE void multiply_values(const Unit& u, int step) {
    const int p = 2 * step, tiles = (keys_seen(u) + kDotDepth - 1) / kDotDepth;
    const BF16* const w = weights(u);
    const BF16* const v = values(u.span) + p * kWeightTiles * kTileBf16;
    float* const to = products_.data() + p * kTileF32;
    amx::zero<5>();
    amx::zero<6>();
    if (p + 1 < panels_) {
      for (int t = 0; t < tiles; ++t) {
        amx::load<2>(w + t * kTileBf16);
        amx::load<3>(v + t * kTileBf16);
        amx::multiply_bf16<5, 2, 3>();
        amx::load<4>(v + (kWeightTiles + t) * kTileBf16);
        amx::multiply_bf16<6, 2, 4>();
      }
      amx::store<5>(to);
      amx::store<6>(to + kTileF32);
    } else if (p < panels_) {
      for (int t = 0; t < tiles; ++t) {
        amx::load<2>(w + t * kTileBf16);
        amx::load<3>(v + t * kTileBf16);
        amx::multiply_bf16<5, 2, 3>();
        amx::multiply_bf16<6, 2, 7>();
      }
      amx::store<5>(to);
      amx::store<6>(to + kTileF32);
    } else {
      for (int t = 0; t < tiles; ++t) {
        amx::load<2>(w + t * kTileBf16);
        amx::multiply_bf16<6, 2, 7>();
      }
      amx::store<6>(to);
    }
  }

  // Weights of a row. kMasked: only the first `seen` of them.
  template <bool kMasked>
  HWY_INLINE float weigh_row(const float* scores, BF16* weights, int seen) {
    const auto score = [&](int b) HWY_ATTR {
      const V16 s = load16(scores + b * kTileF32);
      return kMasked ? first_lanes(s, seen - b * kKvBlock, -kInfinity) : s;
    };
    const V16 scale = set16(scale_);
    V16 s[kBlocksPerSpan];
    repeat<kBlocksPerSpan>([&](auto b) FOE_INLINE { s[b] = score(b); });
    const auto larger = [&](int a, int b) FOE_INLINE { return max(s[a], s[b]); };
    const float largest = max_lane(max(max(larger(0, 1), larger(2, 3)), max(larger(4, 5), larger(6, 7)))) * scale_;
    const V16 minus_largest = set16(-largest);
    repeat<kWeightTiles>([&](auto t) FOE_INLINE {
      store_bf16(weight16(s[2 * t], scale, minus_largest), weight16(s[2 * t + 1], scale, minus_largest),
                 weights + t * kTileBf16);
    });
    return largest;
  }

  // Of `now` the weights; between its rows, products with the values of the unit before and the keys of the next one.
  void weigh(Unit& now, const Unit& before, const Unit& next) {
    const int keys = key_steps(next), steps = keys + (before.valid() ? value_steps() : 0);
    const int first = now.span * kAttentionSpan;
    const bool masked = row(now.group * kGroupRows).position < first + kAttentionSpan - 1;
    for (int r = 0, done = 0; r < kGroupRows; ++r) {
      for (; done < steps * (r + 1) / kGroupRows; ++done)
        done < keys ? multiply_keys(next, done) : multiply_values(before, done - keys);
      const float* s = scores(now) + r * kLanes16;
      BF16* w = weights(now) + r * kDotDepth;
      if (!masked) {
        now.largest[r] = weigh_row<false>(s, w, kAttentionSpan);
        continue;
      }
      const int seen = row(now.group * kGroupRows + r).position + 1 - first;
      if (seen > 0) {
        now.largest[r] = weigh_row<true>(s, w, seen);
        continue;
      }
      now.largest[r] = -kInfinity;
      for (int t = 0; t < kWeightTiles; ++t) std::fill_n(w + t * kTileBf16, kDotDepth, BF16{0});
    }
  }

  // As merge_running() and merge_outputs().
  void merge(const Unit& u) {
    HWY_ALIGN float keep[kGroupRows], take[kGroupRows];
    float* const running = largest_.data() + u.group * kGroupRows;
    const V16 largest = max(load16(running), load16(u.largest));
    store16(exp16(sub(load16(running), largest)), keep);
    store16(exp16(sub(load16(u.largest), largest)), take);
    store16(largest, running);
    const float* from = products_.data();
    float* to = outputs_.data() + static_cast<std::size_t>(u.group * (panels_ + 1)) * kTileF32;
    for (int p = 0; p < panels_; ++p)
      for (int r = 0; r < kGroupRows; ++r, from += kLanes16, to += kLanes16)
        merge_outputs(load16(from), {keep[r], take[r]}, to, kLanes16);
    for (int r = 0; r < kGroupRows; ++r, from += kLanes16, to += kLanes16)
      store16(add(mul(load16(to), set16(keep[r])), mul(load16(from), set16(take[r]))), to);
  }

  void normalise() {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const float* from = outputs_.data() + i / kGroupRows * (panels_ + 1) * kTileF32 + i % kGroupRows * kLanes16;
      const V16 sum = load16(from + panels_ * kTileF32), zero = set16(sign_of_zero(shape_));
      for (int p = 0; p < panels_; ++p) {
        const V16 y = add(div(load16(from + p * kTileF32), sum), zero);
        const int left = shape_.head_dim - p * kLanes16;
        float* const out = rows_[i].out + p * kLanes16;
        left >= kLanes16 ? store16(y, out) : store_first(y, out, left);
      }
    }
  }

  const KvShape& shape_;
  const AttentionTile& widest_;
  const float scale_;
  const int depth_, panels_;  // tiles that a query takes, and panels of 16 columns of outputs
  int groups_ = 0;
  std::vector<Row> rows_;
  AlignedBuffer<BF16> queries_;  // [group][depth][16 rows][32 c]
  const BF16* key_blocks_[kKept][kBlocksPerSpan];
  AlignedBuffer<BF16> keys_;       // [kKept][block][depth][16 pairs of c][16][2], where the cache's end within a tile
  AlignedBuffer<BF16> values_;     // [kKept][panel][weight tile][16 pairs of positions][16][2]
  AlignedBuffer<float> scores_;    // [unit % 2][block][16 rows][16]
  AlignedBuffer<BF16> weights_;    // [unit % 2][weight tile][16 rows][32 positions]
  AlignedBuffer<float> products_;  // [panel][16 rows][16], and a panel of sums
  AlignedBuffer<float> outputs_;   // [group][panel][16 rows][16], likewise
  AlignedBuffer<float> largest_;   // [group][16 rows]
};

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET == HWY_AVX3
#endif
