#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/check.h"
#include "kernels/attention/tile.h"
#include "kernels/cpu.h"
#include "kernels/products/flush_subnormals.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention/attention.cc"
#include <hwy/foreach_target.h>

#include "kernels/attention/amx-inl.h"
#include "kernels/attention/bf16-inl.h"
#include "kernels/attention/share-inl.h"
#include "kernels/attention/stream-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// Computes tiles of one KV head. `following` is what this thread will probably take next. If there are several tiles,
// all of their spans are computed.
template <typename T>
void attend_tiles(std::span<AttentionTile> tiles, const AttentionTile& following) {
  if (tiles.size() > 1)
    share_spans<T>(tiles);
  else
    stream_spans<T>(tiles.front(), following);
}

// With too few rows for tile registers, vectors are as fast.
void attend_rounded(std::span<AttentionTile> tiles, const AttentionTile& following) {
#if HWY_TARGET == HWY_AVX3
  const std::size_t rows = (tiles.size() - 1) * AttentionTile::kMaxRows + tiles.front().rows;
  if (foe::tiles() && rows >= kGroupRows && tiles.front().parts == nullptr) return TiledSpans(tiles).run();
#endif
  stream_paired_spans(tiles, following);
}

// Not inlined, because the mode of subnormal numbers is set around the call (flush_subnormals.h).
HWY_NOINLINE void attend(std::span<AttentionTile> tiles, const AttentionTile& following) {
  if (tiles.front().shape->attention == AttentionType::kBF16) return attend_rounded(tiles, following);
  switch (tiles.front().shape->type) {
    case KvType::kF32:
      return attend_tiles<float>(tiles, following);
    case KvType::kBF16:
      return attend_tiles<BF16>(tiles, following);
    case KvType::kInt8:
      return attend_tiles<std::int8_t>(tiles, following);
  }
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
  Scoring scoring;
  const float* q_TnC;
  const std::byte* layer_kv;
  float* out_TnW;
  float* log_sum_Tn;

  int heads_per_kv() const { return query_heads / shape.kv_heads; }
};

// How the attention of one sequence is cut. For each KV head there are tiles of (token, head) rows. A task is a group
// of tiles or, if a tile has many spans, a piece of the spans of one tile.
struct Cut {
  int tiles = 0;  // tiles of a KV head
  // The spans that some tile sees, and the most of them that one tile sees.
  int first_span = 0, spans = 0, tile_spans = 0;
  int groups = 1;  // groups of the tiles of a KV head
  int pieces = 1;  // pieces of a tile; more than one only if each group is one tile
  // Totals of all sequences before: the tasks, the tiles in several pieces, and the spans of these.
  std::size_t first_task = 0, first_split = 0, first_part = 0;
};
// The most tiles of a task: their queries and weights are in a cache together with one panel. With tile registers there
// are more, as the work that is done once for all of them takes a larger part of the time.
constexpr int kMostTogether = 16, kMostOnTiles = 80;
int most_together(const KvShape& shape) {
  return shape.attention == AttentionType::kBF16 && tiles() ? kMostOnTiles : kMostTogether;
}

// Returns a Cut for each sequence, and one more with the totals. A task has at most a quarter of a thread's share of
// all spans, but at least so many that they are worth handing out and merging. With a single thread there are no
// pieces.
std::vector<Cut> cut_work(const Job& job, int threads) {
  constexpr int kTasksPerThread = 4, kShortestTask = 4;
  const int sequences = job.batch.num_sequences(), heads = job.shape.kv_heads;
  std::vector<Cut> cuts(sequences + 1);
  std::size_t spans = 0;
  for (int s = 0; s < sequences; ++s) {
    const int end = job.batch.sequence_begin[s + 1];
    const int rows = (end - job.batch.sequence_begin[s]) * job.heads_per_kv();
    if (rows == 0) continue;
    cuts[s].tiles = (rows + AttentionTile::kMaxRows - 1) / AttentionTile::kMaxRows;
    cuts[s].first_span = job.scoring.first_seen(job.batch.positions[job.batch.sequence_begin[s]]) / kAttentionSpan;
    cuts[s].spans = job.batch.positions[end - 1] / kAttentionSpan + 1 - cuts[s].first_span;
    cuts[s].tile_spans = cuts[s].spans;
    if (const int window = job.scoring.window; window > 0)
      cuts[s].tile_spans = std::min(cuts[s].spans, (window + AttentionTile::kMaxRows) / kAttentionSpan + 2);
    spans += static_cast<std::size_t>(heads) * cuts[s].tiles * cuts[s].tile_spans;
  }
  const std::size_t most =
      threads == 1 ? spans : std::max<std::size_t>(kShortestTask, spans / (threads * kTasksPerThread));
  for (int s = 0; s < sequences; ++s) {
    Cut &cut = cuts[s], &next = cuts[s + 1];
    const std::size_t tiles = static_cast<std::size_t>(heads) * cut.tiles;
    if (tiles > 0) {
      cut.pieces = static_cast<int>((cut.tile_spans + most - 1) / most);
      const int together =
          static_cast<int>(std::clamp<std::size_t>(most / cut.tile_spans, 1, most_together(job.shape)));
      cut.groups = (cut.tiles + together - 1) / together;
    }
    const std::size_t split = cut.pieces > 1 ? tiles : 0;
    next.first_task = cut.first_task + (tiles == 0 ? 0 : static_cast<std::size_t>(heads) * cut.groups * cut.pieces);
    next.first_split = cut.first_split + split;
    next.first_part = cut.first_part + split * cut.spans;
  }
  return cuts;
}

// Returns the sequence that task or split tile `i` belongs to, and changes `i` to its number within the sequence.
int find_sequence(const std::vector<Cut>& cuts, std::size_t Cut::*first, std::size_t& i) {
  const auto next = std::ranges::upper_bound(cuts, i, {}, first);
  const int sequence = static_cast<int>(next - cuts.begin()) - 1;
  i -= cuts[sequence].*first;
  return sequence;
}

// Returns tile i of a sequence, in the order [KV head][tile].
AttentionTile make_tile(const Job& job, const std::vector<Cut>& cuts, int s, int i, Running* parts, float* outputs) {
  const Cut& cut = cuts[s];
  const int heads_per_kv = job.heads_per_kv(), kv_head = i / cut.tiles;
  const int begin = job.batch.sequence_begin[s], tokens = job.batch.sequence_begin[s + 1] - begin;
  // Later queries see more keys. The last tile comes first, so that threads finish together.
  const int first_row = (cut.tiles - 1 - i % cut.tiles) * AttentionTile::kMaxRows;
  AttentionTile tile;
  tile.rows = std::min(AttentionTile::kMaxRows, tokens * heads_per_kv - first_row);
  for (int r = 0; r < tile.rows; ++r) {
    const int token = begin + (first_row + r) / heads_per_kv;
    const int head = kv_head * heads_per_kv + (first_row + r) % heads_per_kv;
    const std::size_t at = static_cast<std::size_t>(token) * job.query_heads + head;
    tile.q[r] = job.q_TnC + at * job.shape.key_width;
    tile.out[r] = job.out_TnW + at * job.shape.value_width;
    tile.position[r] = job.batch.positions[token];
    tile.first[r] = job.scoring.first_seen(tile.position[r]);
    tile.running[r] = job.scoring.start(head);
  }
  tile.blocks = job.batch.block_table.data() + job.batch.table_begin[s];
  tile.head_kv = job.layer_kv + kv_head * job.shape.head_bytes();
  tile.shape = &job.shape;
  tile.scoring = &job.scoring;
  tile.span_begin = tile.first_span();
  tile.span_end = tile.end_span();
  if (cut.pieces == 1) return tile;
  const std::size_t part = (cut.first_part + static_cast<std::size_t>(i) * cut.spans) * AttentionTile::kMaxRows;
  tile.parts = parts + part;
  tile.part_outputs_Wp = outputs + part * job.shape.padded_values();
  tile.part_begin = cut.first_span;
  return tile;
}

// Of a tile all of whose spans have been merged.
void keep_log_sums(const Job& job, const AttentionTile& tile) {
  if (job.log_sum_Tn == nullptr) return;
  for (int r = 0; r < tile.rows; ++r)
    job.log_sum_Tn[(tile.out[r] - job.out_TnW) / job.shape.value_width] =
        static_cast<float>(tile.running[r].largest / job.scoring.base) + std::log(tile.running[r].sum);
}

// Sets the floating-point mode in which a thread computes.
struct Mode {
  std::optional<FlushSubnormals> flush;
  explicit Mode(const KvShape& shape) {
    if (shape.attention == AttentionType::kBF16) flush.emplace();
  }
};

// A task: the tiles [first, last) of a KV head, and which piece of their spans.
struct Task {
  int sequence, kv_head, first, last, piece;
};
Task make_task(const std::vector<Cut>& cuts, std::size_t i) {
  const int s = find_sequence(cuts, &Cut::first_task, i);
  const Cut& cut = cuts[s];
  const int piece = static_cast<int>(i % cut.pieces), group = static_cast<int>(i / cut.pieces) % cut.groups;
  return {.sequence = s,
          .kv_head = static_cast<int>(i / cut.pieces) / cut.groups,
          .first = group * cut.tiles / cut.groups,
          .last = (group + 1) * cut.tiles / cut.groups,
          .piece = piece};
}

}  // namespace

void attention(ThreadPool& pool, const Batch& batch, const KvShape& shape, int query_heads,
               const AttentionParams& params, const float* q_TnC, const std::byte* layer_kv, float* out_TnW,
               float* log_sum_Tn) {
  if (shape.kv_heads == 0) return;
  FOE_CHECK(shape.attention == AttentionType::kF32 || shape.type == KvType::kBF16, "attention in bf16 over {}",
            to_string(shape.type));
  FOE_CHECK(query_heads % shape.kv_heads == 0, "{} query heads, {} KV heads", query_heads, shape.kv_heads);
  FOE_CHECK(params.scale >= 0 && params.softcap >= 0 && params.window >= 0, "scale {}, soft-cap {}, window {}",
            params.scale, params.softcap, params.window);
  FOE_CHECK(params.sinks_n.empty() || static_cast<int>(params.sinks_n.size()) == query_heads,
            "{} sinks, {} query heads", params.sinks_n.size(), query_heads);
  const Job job{batch, shape, query_heads, Scoring(shape, params), q_TnC, layer_kv, out_TnW, log_sum_Tn};
  const std::vector<Cut> cuts = cut_work(job, pool.threads());
  const Cut& end = cuts.back();
  AlignedBuffer<Running> parts(end.first_part * AttentionTile::kMaxRows);
  AlignedBuffer<float> outputs(parts.size() * shape.padded_values());

  const auto tile_of = [&](const Task& task, int j) {
    const Cut& cut = cuts[task.sequence];
    AttentionTile tile =
        make_tile(job, cuts, task.sequence, task.kv_head * cut.tiles + j, parts.data(), outputs.data());
    tile.span_begin = std::max(tile.span_begin, cut.first_span + cut.spans * task.piece / cut.pieces);
    tile.span_end = std::min(tile.span_end, cut.first_span + cut.spans * (task.piece + 1) / cut.pieces);
    return tile;
  };
  pool.parallel_for(end.first_task, [&](std::size_t i) {
    const Task task = make_task(cuts, i);
    const Task next = make_task(cuts, pool.probably_next(i, end.first_task));
    alignas(AttentionTile) std::byte memory[kMostOnTiles * sizeof(AttentionTile)];  // most tasks have one or few
    const std::span tiles(reinterpret_cast<AttentionTile*>(memory), task.last - task.first);
    for (std::size_t j = 0; j < tiles.size(); ++j)
      std::construct_at(&tiles[j], tile_of(task, task.first + static_cast<int>(j)));
    const Mode mode(shape);
    HWY_DYNAMIC_DISPATCH(attend)(tiles, tile_of(next, next.first));
    for (const AttentionTile& tile : tiles)
      if (tile.parts == nullptr) keep_log_sums(job, tile);
  });
  pool.parallel_for(end.first_split, [&](std::size_t i) {
    const int s = find_sequence(cuts, &Cut::first_split, i);
    AttentionTile tile = make_tile(job, cuts, s, static_cast<int>(i), parts.data(), outputs.data());
    const Mode mode(shape);
    HWY_DYNAMIC_DISPATCH(merge_tile)(tile);
    keep_log_sums(job, tile);
  });
}

}  // namespace foe
#endif
