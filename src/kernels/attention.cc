#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include "base/aligned.h"
#include "base/check.h"
#include "kernels/attention_tile.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>

#include "kernels/gemm_tile-inl.h"
#include "kernels/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

static_assert(kLanes16 == kKvBlock);
constexpr int kBlocksPerSpan = kAttentionSpan / kKvBlock;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// So many independent chains of multiply-adds, as rows times panels, hide their latency.
constexpr int panels_for(int rows) {
  return rows == 1 ? 4 : rows == 2 ? 2 : 1;
}

// The keys of one span, [first, first + count), and their values.
template <typename T>
struct Span {
  static constexpr bool kScaled = std::is_same_v<T, std::int8_t>;

  int index, first;
  int count, blocks;
  const T* keys_C16[kBlocksPerSpan];
  const T* values_16C[kBlocksPerSpan];
  const float* scales[kBlocksPerSpan];  // if kScaled: of 16 keys, then of 16 values

  Span(const AttentionTile& tile, int index_) : index(index_), first(index_ * kAttentionSpan) {
    const KvShape& shape = *tile.shape;
    count = std::min(kAttentionSpan, tile.position[tile.rows - 1] + 1 - first);
    blocks = (count + kKvBlock - 1) / kKvBlock;
    for (int b = 0; b < blocks; ++b) {
      const std::byte* block = tile.head_kv + tile.blocks[first / kKvBlock + b] * shape.block_bytes();
      keys_C16[b] = reinterpret_cast<const T*>(block + shape.scale_bytes());
      values_16C[b] = reinterpret_cast<const T*>(block + shape.values_at());
      scales[b] = reinterpret_cast<const float*>(block);
    }
  }
};

// Fewer rows than a full tile's wait for memory: decode reads each element once. Tiles of a prefill read what is in a
// cache since the tile before.
constexpr bool prefetches(int rows) {
  return rows < AttentionTile::kMaxRows;
}
// Begins to read `rows` rows of 16 elements. Blocks are too short, and too far apart, for the machine to foresee them.
template <typename T>
HWY_INLINE void prefetch(const T* rows_16, int rows) {
  constexpr int kLine = 64;
  const auto* bytes = reinterpret_cast<const std::byte*>(rows_16);
  for (std::size_t at = 0; at < rows * kLanes16 * sizeof(T); at += kLine) hwy::Prefetch(bytes + at);
}

// scores[r][j] = q_r . k_j * scale for the keys of some blocks, -inf where j is past the query's position.
template <int kRows, int kBlocks, typename T>
HWY_INLINE void score_blocks(const AttentionTile& tile, const Span<T>& span, int begin, float scale,
                             float (*scores)[kAttentionSpan]) {
  V16 acc[kRows][kBlocks];
  const T* keys[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    keys[b] = span.keys_C16[begin + b];
    for (int r = 0; r < kRows; ++r) acc[r][b] = zero16();
  }
  const int step = prefetches(kRows) ? kLanes16 : tile.shape->head_dim;
  for (int c = 0; c < tile.shape->head_dim; c += step) {
    const int depth = std::min(step, tile.shape->head_dim - c);
    const float* q[kRows];
    for (int r = 0; r < kRows; ++r) q[r] = tile.q[r] + c;
    if constexpr (prefetches(kRows))
      for (int b = 0; b < kBlocks; ++b) prefetch(span.values_16C[begin + b] + c * kKvBlock, depth);
    multiply_panels<kRows, kBlocks, true>(depth, q, 1, keys, kKvBlock, acc);
    for (int b = 0; b < kBlocks; ++b) keys[b] += step * kKvBlock;
  }
  for (int b = 0; b < kBlocks; ++b) {
    V16 factor = set16(scale);
    if constexpr (Span<T>::kScaled) factor = mul(factor, load16(span.scales[begin + b]));
    const int at = (begin + b) * kKvBlock;
    for (int r = 0; r < kRows; ++r) {
      store16(mul(acc[r][b], factor), scores[r] + at);
      for (int j = std::max(0, tile.position[r] + 1 - span.first - at); j < kKvBlock; ++j)
        scores[r][at + j] = -kInfinity;
    }
  }
}

// Turns a row of scores into e^(s - m) with m their largest, and returns {m, their sum}.
HWY_INLINE Running exponentiate(float* scores, int count) {
  V16 largest = load16(scores);
  for (int j = kLanes16; j < count; j += kLanes16) largest = max(largest, load16(scores + j));
  const float m = max_lane(largest);
  V16 sum = zero16();
  for (int j = 0; j < count; j += kLanes16) {
    const V16 e = exp16(sub(load16(scores + j), set16(m)));
    store16(e, scores + j);
    sum = add(sum, e);
  }
  return {m, sum_lanes(sum)};
}

// The weights of a span's values, not normalised; zeros for a query that ends before the span.
template <int kRows, typename T>
HWY_INLINE void weigh_span(const AttentionTile& tile, const Span<T>& span, float (*weights)[kAttentionSpan],
                           Running* running) {
  constexpr int kBlocks = panels_for(kRows);
  const float scale = 1.0f / std::sqrt(static_cast<float>(tile.shape->head_dim));
  int b = 0;
  for (; b + kBlocks <= span.blocks; b += kBlocks) score_blocks<kRows, kBlocks>(tile, span, b, scale, weights);
  for (; b < span.blocks; ++b) score_blocks<kRows, 1>(tile, span, b, scale, weights);
  for (int r = 0; r < kRows; ++r) {
    running[r] = {};
    if (tile.position[r] < span.first) {
      std::fill(weights[r], weights[r] + span.blocks * kKvBlock, 0.0f);
      continue;
    }
    running[r] = exponentiate(weights[r], span.blocks * kKvBlock);
    if constexpr (Span<T>::kScaled)
      for (b = 0; b < span.blocks; ++b) {
        float* w = weights[r] + b * kKvBlock;
        store16(mul(load16(w), load16(span.scales[b] + kKvBlock)), w);
      }
  }
}

// acc[r][p] = weights of a span times the columns of its values from `c` on.
template <int kRows, int kPanels, typename T>
HWY_INLINE void combine_values(const AttentionTile& tile, const Span<T>& span, const Span<T>& next,
                               float (*weights)[kAttentionSpan], int c, V16 (&acc)[kRows][kPanels]) {
  for (int r = 0; r < kRows; ++r)
    for (int p = 0; p < kPanels; ++p) acc[r][p] = zero16();
  for (int b = 0; b < span.blocks; ++b) {
    if (prefetches(kRows) && b < next.blocks) prefetch(next.keys_C16[b] + c * kKvBlock, kPanels * kLanes16);
    const float* block_weights[kRows];
    for (int r = 0; r < kRows; ++r) block_weights[r] = weights[r] + b * kKvBlock;
    multiply_tile<kRows, kPanels, true>(std::min(kKvBlock, span.count - b * kKvBlock), block_weights, 1,
                                        span.values_16C[b] + c, tile.shape->padded_dim(), kLanes16, acc);
  }
}

// Takes a span into what came before; the factors of the outputs of both.
struct Merge {
  float keep, take;
};
HWY_INLINE Merge merge_running(Running& all, const Running& span) {
  const float largest = std::max(all.largest, span.largest);
  HWY_ALIGN float factors[kLanes16] = {all.largest - largest, span.largest - largest};
  store16(exp16(load16(factors)), factors);
  all.sum = all.sum * factors[0] + span.sum * factors[1];
  all.largest = largest;
  return {factors[0], factors[1]};
}
HWY_INLINE void merge_outputs(V16 span, const Merge& merge, float* out, int columns) {
  const V16 before = columns >= kLanes16 ? load16(out) : load_first(out, columns);
  const V16 after = fma(span, set16(merge.take), mul(before, set16(merge.keep)));
  columns >= kLanes16 ? store16(after, out) : store_first(after, out, columns);
}

// Columns c .. c + 16 kPanels of a span's outputs, merged or left as a part.
template <int kRows, int kPanels, typename T>
HWY_INLINE void take_columns(const AttentionTile& tile, const Span<T>& span, const Span<T>& next,
                             float (*weights)[kAttentionSpan], int c, const Merge* merges) {
  V16 acc[kRows][kPanels];
  combine_values(tile, span, next, weights, c, acc);
  for (int r = 0; r < kRows; ++r)
    for (int p = 0; p < kPanels; ++p) {
      const int column = c + p * kLanes16;
      if (tile.parts != nullptr)
        store16(acc[r][p], tile.part_outputs(span.index, r) + column);
      else if (tile.position[r] >= span.first)
        merge_outputs(acc[r][p], merges[r], tile.out[r] + column, tile.shape->head_dim - column);
    }
}

// One span for all rows.
template <int kRows, typename T>
void take_span(AttentionTile& tile, const Span<T>& span, const Span<T>& next) {
  constexpr int kPanels = panels_for(kRows);
  HWY_ALIGN float weights[kRows][kAttentionSpan];
  Running here[kRows];
  weigh_span<kRows>(tile, span, weights, here);
  Merge merges[kRows] = {};
  for (int r = 0; r < kRows; ++r) {
    if (tile.parts != nullptr)
      tile.part(span.index, r) = here[r];
    else if (tile.position[r] >= span.first)
      merges[r] = merge_running(tile.running[r], here[r]);
  }
  const int width = tile.shape->padded_dim();
  int c = 0;
  for (; c + kPanels * kLanes16 <= width; c += kPanels * kLanes16)
    take_columns<kRows, kPanels>(tile, span, next, weights, c, merges);
  for (; c < width; c += kLanes16) take_columns<kRows, 1>(tile, span, next, weights, c, merges);
}

HWY_INLINE void begin_outputs(const AttentionTile& tile) {
  for (int r = 0; r < tile.rows; ++r) std::fill(tile.out[r], tile.out[r] + tile.shape->head_dim, 0.0f);
}
HWY_INLINE void normalise_outputs(const AttentionTile& tile) {
  for (int r = 0; r < tile.rows; ++r)
    for (int c = 0; c < tile.shape->head_dim; ++c) tile.out[r][c] /= tile.running[r].sum;
}

template <typename T, int kRows = AttentionTile::kMaxRows>
void take_span_up_to(AttentionTile& tile, int span) {
  if (tile.rows == kRows)
    return take_span<kRows>(tile, Span<T>(tile, span), Span<T>(tile, std::min(span + 1, tile.span_end - 1)));
  if constexpr (kRows > 1) take_span_up_to<T, kRows - 1>(tile, span);
}

// Tiles of one KV head, span by span: what the first of them has read is in the cache for the others.
template <typename T>
void attend_tiles(std::span<AttentionTile> tiles) {
  int end = 0;
  for (const AttentionTile& tile : tiles) {
    if (tile.parts == nullptr) begin_outputs(tile);
    end = std::max(end, tile.span_end);
  }
  for (int span = tiles.front().span_begin; span < end; ++span)
    for (AttentionTile& tile : tiles)
      if (span < tile.span_end) take_span_up_to<T>(tile, span);
  for (const AttentionTile& tile : tiles)
    if (tile.parts == nullptr) normalise_outputs(tile);
}

void attend(std::span<AttentionTile> tiles) {
  switch (tiles.front().shape->type) {
    case KvType::kF32:
      return attend_tiles<float>(tiles);
    case KvType::kBF16:
      return attend_tiles<BF16>(tiles);
    case KvType::kInt8:
      return attend_tiles<std::int8_t>(tiles);
  }
}

// The outputs of a tile from the parts of all its spans.
void merge_tile(AttentionTile& tile) {
  begin_outputs(tile);
  for (int span = 0; span < tile.spans(); ++span)
    for (int r = 0; r < tile.rows; ++r) {
      if (tile.position[r] < span * kAttentionSpan) continue;
      const Merge merge = merge_running(tile.running[r], tile.part(span, r));
      const float* part = tile.part_outputs(span, r);
      for (int c = 0; c < tile.shape->head_dim; c += kLanes16)
        merge_outputs(load16(part + c), merge, tile.out[r] + c, tile.shape->head_dim - c);
    }
  normalise_outputs(tile);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(attend);
HWY_EXPORT(merge_tile);

struct Job {
  const Batch& batch;
  const KvShape& shape;
  int query_heads;
  const float* q_TnC;
  const std::byte* layer_kv;
  float* out_TnC;

  int heads_per_kv() const { return query_heads / shape.kv_heads; }
};

// How a sequence's attention is cut: for each KV head into tiles of (token, head) rows. A task is some tiles, or a
// piece of the spans of one.
struct Cut {
  int tiles = 0;   // of a KV head
  int spans = 0;   // of the last tile
  int groups = 1;  // of the tiles of a KV head
  int pieces = 1;  // of a tile, where groups are of one
  // Of all sequences before: tasks, and of tiles in several pieces their number and their spans.
  std::size_t first_task = 0, first_split = 0, first_part = 0;
};
constexpr int kMostTogether = 16;  // tiles of a task, whose queries and outputs are in a cache beside one span

// One for each sequence, and an end. No task has more than a quarter of a thread's share of all spans (or more than
// one span); a single thread needs no pieces.
std::vector<Cut> cut_work(const Job& job, int threads) {
  constexpr int kTasksPerThread = 4;
  const int sequences = job.batch.num_sequences(), heads = job.shape.kv_heads;
  std::vector<Cut> cuts(sequences + 1);
  std::size_t spans = 0;
  for (int s = 0; s < sequences; ++s) {
    const int end = job.batch.sequence_begin[s + 1];
    const int rows = (end - job.batch.sequence_begin[s]) * job.heads_per_kv();
    if (rows == 0) continue;
    cuts[s].tiles = (rows + AttentionTile::kMaxRows - 1) / AttentionTile::kMaxRows;
    cuts[s].spans = job.batch.positions[end - 1] / kAttentionSpan + 1;
    spans += static_cast<std::size_t>(heads) * cuts[s].tiles * cuts[s].spans;
  }
  const std::size_t most = threads == 1 ? spans : std::max<std::size_t>(1, spans / (threads * kTasksPerThread));
  for (int s = 0; s < sequences; ++s) {
    Cut &cut = cuts[s], &next = cuts[s + 1];
    const std::size_t tiles = static_cast<std::size_t>(heads) * cut.tiles;
    if (tiles > 0) {
      cut.pieces = static_cast<int>((cut.spans + most - 1) / most);
      const int together = static_cast<int>(std::clamp<std::size_t>(most / cut.spans, 1, kMostTogether));
      cut.groups = (cut.tiles + together - 1) / together;
    }
    const std::size_t split = cut.pieces > 1 ? tiles : 0;
    next.first_task = cut.first_task + (tiles == 0 ? 0 : static_cast<std::size_t>(heads) * cut.groups * cut.pieces);
    next.first_split = cut.first_split + split;
    next.first_part = cut.first_part + split * cut.spans;
  }
  return cuts;
}

// The sequence that the i-th task or split tile belongs to; of these, `i` becomes its own.
int find_sequence(const std::vector<Cut>& cuts, std::size_t Cut::*first, std::size_t& i) {
  const auto next = std::ranges::upper_bound(cuts, i, {}, first);
  const int sequence = static_cast<int>(next - cuts.begin()) - 1;
  i -= cuts[sequence].*first;
  return sequence;
}

// Tile i of a sequence, [KV head][tile].
AttentionTile make_tile(const Job& job, const std::vector<Cut>& cuts, int s, int i, Running* parts, float* outputs) {
  const Cut& cut = cuts[s];
  const int head_dim = job.shape.head_dim, heads_per_kv = job.heads_per_kv(), kv_head = i / cut.tiles;
  const int begin = job.batch.sequence_begin[s], tokens = job.batch.sequence_begin[s + 1] - begin;
  // Later queries see more keys: taking the last tile first lets the threads end together.
  const int first_row = (cut.tiles - 1 - i % cut.tiles) * AttentionTile::kMaxRows;
  AttentionTile tile;
  tile.rows = std::min(AttentionTile::kMaxRows, tokens * heads_per_kv - first_row);
  for (int r = 0; r < tile.rows; ++r) {
    const int token = begin + (first_row + r) / heads_per_kv;
    const int head = kv_head * heads_per_kv + (first_row + r) % heads_per_kv;
    const std::size_t at = (static_cast<std::size_t>(token) * job.query_heads + head) * head_dim;
    tile.q[r] = job.q_TnC + at;
    tile.out[r] = job.out_TnC + at;
    tile.position[r] = job.batch.positions[token];
  }
  tile.blocks = job.batch.block_table.data() + job.batch.table_begin[s];
  tile.head_kv = job.layer_kv + kv_head * job.shape.head_bytes();
  tile.shape = &job.shape;
  tile.span_end = tile.spans();
  if (cut.pieces == 1) return tile;
  const std::size_t part = (cut.first_part + static_cast<std::size_t>(i) * cut.spans) * AttentionTile::kMaxRows;
  tile.parts = parts + part;
  tile.part_outputs_Cp = outputs + part * job.shape.padded_dim();
  return tile;
}

}  // namespace

void attention(ThreadPool& pool, const Batch& batch, const KvShape& shape, int query_heads, const float* q_TnC,
               const std::byte* layer_kv, float* out_TnC) {
  if (shape.kv_heads == 0) return;
  FOE_CHECK(query_heads % shape.kv_heads == 0, "{} query heads, {} KV heads", query_heads, shape.kv_heads);
  const Job job{batch, shape, query_heads, q_TnC, layer_kv, out_TnC};
  const std::vector<Cut> cuts = cut_work(job, pool.threads());
  const Cut& end = cuts.back();
  AlignedBuffer<Running> parts(end.first_part * AttentionTile::kMaxRows);
  AlignedBuffer<float> outputs(parts.size() * shape.padded_dim());

  pool.parallel_for(end.first_task, [&](std::size_t i) {
    const int s = find_sequence(cuts, &Cut::first_task, i);
    const Cut& cut = cuts[s];
    const int piece = static_cast<int>(i % cut.pieces), group = static_cast<int>(i / cut.pieces);
    const int first = group % cut.groups * cut.tiles / cut.groups,
              last = (group % cut.groups + 1) * cut.tiles / cut.groups;
    AttentionTile tiles[kMostTogether];
    for (int j = first; j < last; ++j) {
      AttentionTile& tile = tiles[j - first] =
          make_tile(job, cuts, s, group / cut.groups * cut.tiles + j, parts.data(), outputs.data());
      tile.span_begin = cut.spans * piece / cut.pieces;
      tile.span_end = std::min(tile.span_end, cut.spans * (piece + 1) / cut.pieces);
    }
    HWY_DYNAMIC_DISPATCH(attend)({tiles, static_cast<std::size_t>(last - first)});
  });
  pool.parallel_for(end.first_split, [&](std::size_t i) {
    const int s = find_sequence(cuts, &Cut::first_split, i);
    AttentionTile tile = make_tile(job, cuts, s, static_cast<int>(i), parts.data(), outputs.data());
    HWY_DYNAMIC_DISPATCH(merge_tile)(tile);
  });
}

}  // namespace foe
#endif
