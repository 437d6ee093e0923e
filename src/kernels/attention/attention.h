// Causal grouped-query attention over a paged KV cache.
//
// The softmax is taken over spans of 128 absolute positions, each from zero, merged in ascending order (the online
// softmax of Milakov and Gimelshein 2018, with fixed spans). A query's result is then the same bits in prefill, in
// chunks and in decode, alone and in a batch, and whoever computes which spans.
#pragma once

#include <cstddef>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "kernels/formats/kv_format.h"

namespace foe {

inline constexpr int kAttentionSpan = 128;  // positions; a multiple of kKvBlock

// out_TnC = attention of q_TnC (n query heads; n / m share one KV head) over the layer's blocks, which must hold every
// position up to each query's own. With AttentionType::kF32 elements are widened in registers; a scale of kInt8
// multiplies the score of its key, or the weight of its value. With kBF16 the weights of a span, e^(s - largest), are
// rounded to bf16, and so is what they are divided by: their sum is of the rounded ones, which errs less, as an error
// then only counts by how far its value is from the mean. Where there are fewer queries than keep the threads busy,
// threads share the spans of one, and what each span gave is kept until they are merged.
void attention(ThreadPool& pool, const Batch& batch, const KvShape& shape, int query_heads, const float* q_TnC,
               const std::byte* layer_kv, float* out_TnC);

}  // namespace foe
