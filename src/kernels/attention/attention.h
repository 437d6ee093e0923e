// Causal grouped-query attention over a paged KV cache.
//
// The softmax is computed over spans of 128 absolute positions. Each span starts from zero, and spans are merged in
// ascending order (the online softmax of Milakov and Gimelshein 2018, with fixed spans). So the result of a query has
// the same bits in prefill, in chunks and in decode, alone and in a batch, and whichever thread computes a span.
#pragma once

#include <cstddef>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "kernels/formats/kv_format.h"

namespace foe {

inline constexpr int kAttentionSpan = 128;  // positions; a multiple of kKvBlock

// Writes the attention of q_TnC (n query heads, of which n / m share a KV head) over the layer's KV blocks to out_TnC.
// The blocks must hold every position up to each query's own (write_kv). With AttentionType::kF32, keys and values are
// widened in registers, and a scale of KvType::kInt8 multiplies the score of its key or the weight of its value. With
// kBF16, the weights of a span, e^(s - largest), are rounded to bf16, and they are divided by the sum of the rounded
// weights. That errs less than the exact sum: the error of a weight then counts only by how far its value is from the
// mean. If there are too few queries to keep all threads busy, threads share the spans of a query, whose results are
// kept until they are merged.
void attention(ThreadPool& pool, const Batch& batch, const KvShape& shape, int query_heads, const float* q_TnC,
               const std::byte* layer_kv, float* out_TnC);

}  // namespace foe
