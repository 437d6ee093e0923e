// Causal grouped-query attention over a paged KV cache.
//
// The softmax is computed over spans of 128 absolute positions. Each span starts from zero, and spans are merged in
// ascending order (the online softmax of Milakov and Gimelshein 2018, with fixed spans). So the result of a query has
// the same bits in prefill, in chunks and in decode, alone and in a batch, and whichever thread computes a span.
#pragma once

#include <cstddef>
#include <span>

#include "base/thread_pool.h"
#include "core/batch.h"
#include "kernels/formats/kv_format.h"

namespace foe {

inline constexpr int kAttentionSpan = 128;  // positions; a multiple of kKvBlock

// What becomes of a product q . k, and which keys a query sees. By default these are all up to its own position, as in
// Vaswani et al. 2017.
struct AttentionParams {
  // Scores are products times this. 0 stands for 1 / sqrt(key width), and that number has the bits of 0.
  double scale = 0;
  // A score then becomes softcap * tanh(score / softcap), as in Gemma 2 (arXiv 2408.00118). 0 leaves it as it is.
  double softcap = 0;
  // A query at position p sees those in (p - window, p], or with 0 those in [0, p]. Spans that it does not see are not
  // computed. The others begin and end where they do without a window.
  int window = 0;
  // For each query head one more score, which is neither scaled nor capped, of a key whose value is zero: it starts the
  // running maximum and sum (the sinks of gpt-oss, arXiv 2508.10925). May be empty.
  std::span<const float> sinks_n = {};
};

// Writes the attention of q_TnC (n query heads, of which n / m share a KV head) over the layer's KV blocks to out_TnW.
// The blocks must hold every position that a query sees (write_kv). With AttentionType::kF32, keys and values are
// widened in registers, and a scale of KvType::kInt8 multiplies the score of its key or the weight of its value. With
// kBF16, the weights of a span, e^(s - largest), are rounded to bf16, and they are divided by the sum of the rounded
// weights. That errs less than the exact sum: the error of a weight then counts only by how far its value is from the
// mean. If there are too few queries to keep all threads busy, threads share the spans of a query, whose results are
// kept until they are merged.
//
// log_sum_Tn may take the logarithm of the sum of e^score over the keys that a query sees, in base e, with which a
// backward pass has the weights again: e^(score - log_sum). With kBF16 it is that of the sum of the rounded weights.
void attention(ThreadPool& pool, const Batch& batch, const KvShape& shape, int query_heads,
               const AttentionParams& params, const float* q_TnC, const std::byte* layer_kv, float* out_TnW,
               float* log_sum_Tn = nullptr);

}  // namespace foe
