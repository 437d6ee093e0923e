// Causal grouped-query attention over whole sequences, forward and backward, and what comes between the projections and
// attention: QK-norm and RoPE.
//
// T tokens of several sequences of the same length, one sequence after the other. qkv_TW has a row for each token with
// W = (N + 2M) C numbers: for each stream (Dims::streams; one unless federated) its queries, keys and values. o_TNC has
// the heads in order.
#pragma once

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "core/batch.h"
#include "train/layout.h"
#include "train/products.h"

namespace foe::train {

// Several sequences of the same length.
struct Span {
  int sequences, length;
  int tokens() const { return sequences * length; }
  bool operator==(const Span&) const = default;
};

// Positions of a block of queries. Scores are computed against all keys up to the end of the block, so half a block of
// scores per query is wasted; longer blocks make the sums over queries in the backward pass longer and so more
// efficient.
inline constexpr int kQueryBlock = 32;

// What the attention of inference takes: a batch with all tokens of a shard, and their keys and values in blocks.
template <typename T>
struct KernelScratch {
  KernelScratch(const Dims&, int, int) {}
};
template <>
struct KernelScratch<float> {
  KernelScratch(const Dims& d, int sequences, int length);

  ThreadPool pool{1};
  Span span{0, 0};  // of `batch`
  Batch batch;
  AlignedBuffer<float> q_TNC, k_TMC, v_TMC;
  AlignedBuffer<std::byte> kv;
};

// Scratch memory of one thread, for one KV head and its query heads if not said otherwise.
template <typename T>
struct AttentionScratch {
  AttentionScratch(const Dims& d, int sequences, int length);

  KernelScratch<T> kernel;

  std::size_t score_stride;  // larger than `length`, to spread rows over cache sets
  OperandMemory<T> keys_t, keys, values_t, values;
  AlignedBuffer<T> q, o, dq, d_o;     // [heads of a key's group * kQueryBlock][C]
  AlignedBuffer<T> scores, d_scores;  // [the same rows][score_stride]
  AlignedBuffer<T> dk, dv;            // [length][C]
};

// Writes o_TNC = softmax(q k^T / sqrt(C)) v, and log_sum_TN, from which the backward pass computes the softmax again.
// In f32 this is the attention of inference (kernels/attention/attention.h), which has its own order of operations;
// with `precision` bf16 it is that of AttentionType::kBF16.
template <typename T>
void attention_forward(const Dims& d, Span span, DType precision, const T* qkv_TW, T* o_TNC, T* log_sum_TN,
                       AttentionScratch<T>& scratch);

// Writes the gradient dqkv_TW from do_TNC, the gradient of o_TNC. Products round to `precision`, as in the forward
// pass.
template <typename T>
void attention_backward(const Dims& d, Span span, DType precision, const T* qkv_TW, const T* o_TNC, const T* log_sum_TN,
                        const T* do_TNC, T* dqkv_TW, AttentionScratch<T>& scratch, ProductScratch<T>& products);

// Cosines and sines of RoPE for positions [0, length), and the sines of the way back. The angles position / factor *
// theta^(-2i / C) are computed in double.
template <typename T>
struct RopeTable {
  RopeTable(const ModelConfig& config, int length);

  int length, half;
  AlignedBuffer<T> cosines, sines, back;  // [length][C / 2]
};

// Returns how many RMSNorms the QK-norm of one token consists of: one for each head, or with a full QK-norm one for all
// query heads and one for all KV heads of each stream.
int qk_norm_units(const ModelConfig& config, const Dims& d);

// Normalises queries and keys as the config says, and rotates them, in place. For the backward pass it writes the
// original rows to raw_TW and the inverse RMS of each norm to scale_TU; both are unused without QK-norm. q_norm and
// k_norm are the weights, of all streams.
template <typename T>
void qk_forward(const ModelConfig& config, const Dims& d, Span span, const RopeTable<T>& rope, const T* q_norm,
                const T* k_norm, T* qkv_TW, T* raw_TW, T* scale_TU);

// Takes the gradient dqkv_TW back through rotation and norm, in place, and adds to the gradients of the norm weights:
// those of the norms of heads at a place for each stream, which are `norm_stride` numbers apart.
template <typename T>
void qk_backward(const ModelConfig& config, const Dims& d, Span span, const RopeTable<T>& rope, const T* q_norm,
                 const T* k_norm, const T* raw_TW, const T* scale_TU, T* dqkv_TW, T* dq_norm, T* dk_norm,
                 std::size_t norm_stride);

}  // namespace foe::train
