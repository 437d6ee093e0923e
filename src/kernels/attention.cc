#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include <hwy/foreach_target.h>

#include "kernels/gemm_tile-inl.h"
#include "kernels/math-inl.h"

// The queries of one task: `rows` consecutive (token, head) pairs that share one KV head of one sequence.
#ifndef FOE_KERNELS_ATTENTION_TILE
#define FOE_KERNELS_ATTENTION_TILE
namespace foe {
struct AttentionTile {
  static constexpr int kMaxRows = 6;  // with one panel, what AVX2 holds in registers
  int rows = 0;
  const float* q[kMaxRows] = {};
  float* out[kMaxRows] = {};
  int position[kMaxRows] = {};           // ascending; a query sees keys at 0..position
  const std::int32_t* blocks = nullptr;  // the sequence's block table
  const float* head_kv = nullptr;        // this KV head in block 0 of the layer
  std::size_t block_stride = 0;          // floats from block to block
  int head_dim = 0;
  int padded_dim = 0;
};
}  // namespace foe
#endif

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

static_assert(kLanes16 == kKvBlock);
constexpr int kBlocksPerSpan = kAttentionSpan / kKvBlock;

// What a query has accumulated over the spans so far: out holds sum(e^(s - largest) v), unnormalised.
struct Running {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

// scores[r][j] = q_r . k_j * scale for the keys of one block, -inf where j is past the query's position.
template <int kRows>
HWY_INLINE void score_block(const AttentionTile& tile, const float* k_C16, int first_key, float scale,
                            float (*scores)[kAttentionSpan], int column) {
  V16 acc[kRows][1];
  for (int r = 0; r < kRows; ++r) acc[r][0] = zero16();
  multiply_tile<kRows, 1, true>(tile.head_dim, tile.q, 1, k_C16, kKvBlock, 0, acc);
  for (int r = 0; r < kRows; ++r) {
    float* s = scores[r] + column;
    store16(mul(acc[r][0], set16(scale)), s);
    for (int j = std::max(0, tile.position[r] + 1 - first_key); j < kKvBlock; ++j)
      s[j] = -std::numeric_limits<float>::infinity();
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

// One span of keys [first, first + count) for all rows: out and running take it in.
template <int kRows>
void add_span(const AttentionTile& tile, int first, int count, float scale, Running* running) {
  HWY_ALIGN float scores[kRows][kAttentionSpan];
  const int blocks = (count + kKvBlock - 1) / kKvBlock;
  const float* kv[kBlocksPerSpan];
  for (int b = 0; b < blocks; ++b) {
    kv[b] = tile.head_kv + tile.blocks[first / kKvBlock + b] * tile.block_stride;
    score_block<kRows>(tile, kv[b], first + b * kKvBlock, scale, scores, b * kKvBlock);
  }

  const float* weights[kRows];
  float keep[kRows], take[kRows];  // factors of what was there and of this span
  for (int r = 0; r < kRows; ++r) {
    weights[r] = scores[r];
    keep[r] = 1.0f;
    take[r] = 0.0f;
    if (tile.position[r] < first) {  // this query ends before the span
      std::fill(scores[r], scores[r] + blocks * kKvBlock, 0.0f);
      continue;
    }
    const Running span = exponentiate(scores[r], blocks * kKvBlock);
    const float largest = std::max(running[r].largest, span.largest);
    HWY_ALIGN float factors[kLanes16] = {running[r].largest - largest, span.largest - largest};
    store16(exp16(load16(factors)), factors);
    keep[r] = factors[0];
    take[r] = factors[1];
    running[r].sum = running[r].sum * keep[r] + span.sum * take[r];
    running[r].largest = largest;
  }

  for (int c = 0; c < tile.head_dim; c += kLanes16) {
    V16 acc[kRows][1];
    for (int r = 0; r < kRows; ++r) acc[r][0] = zero16();
    for (int b = 0; b < blocks; ++b) {
      const float* block_weights[kRows];
      for (int r = 0; r < kRows; ++r) block_weights[r] = weights[r] + b * kKvBlock;
      const float* v = kv[b] + tile.head_dim * kKvBlock + c;
      multiply_tile<kRows, 1, true>(std::min(kKvBlock, count - b * kKvBlock), block_weights, 1, v, tile.padded_dim, 0,
                                    acc);
    }
    const int columns = std::min(kLanes16, tile.head_dim - c);
    for (int r = 0; r < kRows; ++r) {
      if (tile.position[r] < first) continue;
      float* out = tile.out[r] + c;
      const V16 before = columns == kLanes16 ? load16(out) : load_first(out, columns);
      const V16 after = fma(acc[r][0], set16(take[r]), mul(before, set16(keep[r])));
      columns == kLanes16 ? store16(after, out) : store_first(after, out, columns);
    }
  }
}

template <int kRows>
void attend_rows(const AttentionTile& tile) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(tile.head_dim));
  Running running[kRows];
  for (int r = 0; r < kRows; ++r) std::fill(tile.out[r], tile.out[r] + tile.head_dim, 0.0f);
  const int keys = tile.position[kRows - 1] + 1;
  for (int first = 0; first < keys; first += kAttentionSpan)
    add_span<kRows>(tile, first, std::min(kAttentionSpan, keys - first), scale, running);
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < tile.head_dim; ++c) tile.out[r][c] /= running[r].sum;
}

template <int kRows>
void attend_up_to(const AttentionTile& tile) {
  if (tile.rows == kRows) return attend_rows<kRows>(tile);
  if constexpr (kRows > 1) attend_up_to<kRows - 1>(tile);
}

void attend(const AttentionTile& tile) {
  attend_up_to<AttentionTile::kMaxRows>(tile);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(attend);

// Rows (token, head of one KV head) of a sequence come in tiles of this many.
int tiles_of(int tokens, int heads_per_kv) {
  return (tokens * heads_per_kv + AttentionTile::kMaxRows - 1) / AttentionTile::kMaxRows;
}

}  // namespace

void write_kv(const Batch& batch, const KvShape& shape, const float* k_TmC, const float* v_TmC, float* layer_kv) {
  const std::size_t width = static_cast<std::size_t>(shape.kv_heads) * shape.head_dim;
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const std::int32_t* blocks = batch.block_table.data() + batch.table_begin[s];
    for (int t = batch.sequence_begin[s]; t < batch.sequence_begin[s + 1]; ++t) {
      const int position = batch.positions[t], slot = position % kKvBlock;
      float* block = layer_kv + blocks[position / kKvBlock] * shape.block_floats();
      for (int head = 0; head < shape.kv_heads; ++head) {
        float* keys = block + head * shape.head_floats();
        float* values = keys + shape.head_dim * kKvBlock + slot * shape.padded_dim();
        const float* k = k_TmC + t * width + head * shape.head_dim;
        const float* v = v_TmC + t * width + head * shape.head_dim;
        for (int c = 0; c < shape.head_dim; ++c) keys[c * kKvBlock + slot] = k[c];
        std::copy(v, v + shape.head_dim, values);
      }
    }
  }
}

void attention(ThreadPool& pool, const Batch& batch, const KvShape& shape, int query_heads, const float* q_TnC,
               const float* layer_kv, float* out_TnC) {
  if (shape.kv_heads == 0) return;
  FOE_CHECK(query_heads % shape.kv_heads == 0, "{} query heads, {} KV heads", query_heads, shape.kv_heads);
  const int heads_per_kv = query_heads / shape.kv_heads;
  const auto tokens_of = [&](int s) { return batch.sequence_begin[s + 1] - batch.sequence_begin[s]; };
  std::size_t tasks = 0;
  for (int s = 0; s < batch.num_sequences(); ++s) tasks += shape.kv_heads * tiles_of(tokens_of(s), heads_per_kv);

  pool.parallel_for(tasks, [&](std::size_t task) {
    int s = 0;
    const auto tasks_of = [&] {
      return static_cast<std::size_t>(shape.kv_heads) * tiles_of(tokens_of(s), heads_per_kv);
    };
    for (; task >= tasks_of(); ++s) task -= tasks_of();
    const int tiles = tiles_of(tokens_of(s), heads_per_kv);
    const int kv_head = static_cast<int>(task) / tiles;
    // Later queries see more keys: taking the last tile first lets the threads end together.
    const int first_row = (tiles - 1 - static_cast<int>(task) % tiles) * AttentionTile::kMaxRows;

    AttentionTile tile;
    tile.rows = std::min(AttentionTile::kMaxRows, tokens_of(s) * heads_per_kv - first_row);
    for (int r = 0; r < tile.rows; ++r) {
      const int token = batch.sequence_begin[s] + (first_row + r) / heads_per_kv;
      const int head = kv_head * heads_per_kv + (first_row + r) % heads_per_kv;
      const std::size_t at = (static_cast<std::size_t>(token) * query_heads + head) * shape.head_dim;
      tile.q[r] = q_TnC + at;
      tile.out[r] = out_TnC + at;
      tile.position[r] = batch.positions[token];
    }
    tile.blocks = batch.block_table.data() + batch.table_begin[s];
    tile.head_kv = layer_kv + kv_head * shape.head_floats();
    tile.block_stride = shape.block_floats();
    tile.head_dim = shape.head_dim;
    tile.padded_dim = shape.padded_dim();
    HWY_DYNAMIC_DISPATCH(attend)(tile);
  });
}

}  // namespace foe
#endif
