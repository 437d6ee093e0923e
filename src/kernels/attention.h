// Causal grouped-query attention over a paged KV cache.
//
// A block holds 16 positions of one KV head: keys transposed, K [C][16], so that scores run over keys in vector lanes,
// then values V [16][Cp], with Cp = C rounded up to 16, so that outputs run over the head's width.
//
// The softmax is taken over spans of 128 absolute positions, each from zero, merged in ascending order (the online
// softmax of Milakov and Gimelshein 2018, with fixed spans). A query's result is then the same bits in prefill, in
// chunks and in decode, alone and in a batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "core/batch.h"

namespace foe {

inline constexpr int kAttentionSpan = 128;  // positions; a multiple of kKvBlock

struct KvShape {
  int kv_heads = 0;  // m, this rank's share
  int head_dim = 0;  // C

  int padded_dim() const { return (head_dim + 15) / 16 * 16; }
  // Floats of one block of one head, and of all heads.
  std::size_t head_floats() const { return static_cast<std::size_t>(kKvBlock) * (head_dim + padded_dim()); }
  std::size_t block_floats() const { return head_floats() * kv_heads; }
};

// Writes k_TmC and v_TmC of the batch's tokens into the layer's blocks.
void write_kv(const Batch& batch, const KvShape& shape, const float* k_TmC, const float* v_TmC, float* layer_kv);

// out_TnC = attention of q_TnC (n query heads; n / m share one KV head) over the layer's blocks, which must hold every
// position up to each query's own.
void attention(ThreadPool& pool, const Batch& batch, const KvShape& shape, int query_heads, const float* q_TnC,
               const float* layer_kv, float* out_TnC);

}  // namespace foe
