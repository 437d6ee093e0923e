// Causal grouped-query attention over whole sequences, forward and backward, and what stands between the projections
// and it: QK-norm and RoPE.
//
// T tokens of several sequences of one length, one below the other. qkv_TW: one row per token, W = (N + 2M) C, stream
// by stream (Dims::streams; one unless federated), in each its queries, keys and values. o_TNC: heads in order.
#pragma once

#include "base/aligned.h"
#include "train/layout.h"
#include "train/products.h"

namespace foe::train {

struct Span {
  int sequences, length;
  int tokens() const { return sequences * length; }
};

// Positions per block of queries: all keys up to the block's end are scored at once, so half a block of scores per
// query is wasted, while the products of the backward pass sum over the queries of a block.
inline constexpr int kQueryBlock = 32;

// Scratch of one thread for one head of keys and its queries.
template <typename T>
struct AttentionScratch {
  AttentionScratch(const Dims& d, int length);

  std::size_t score_stride;                         // more than `length`, to spread rows over cache sets
  AlignedBuffer<T> keys_t, keys, values_t, values;  // panels
  AlignedBuffer<T> q, o, dq, d_o;                   // [heads of a key's group * kQueryBlock][C]
  AlignedBuffer<T> scores, d_scores;                // [the same rows][score_stride]
};

// o_TNC = softmax(q k^T / sqrt(C)) v; log_sum_TN is what backward needs to compute the softmax again.
template <typename T>
void attention_forward(const Dims& d, Span span, const T* qkv_TW, T* o_TNC, T* log_sum_TN,
                       AttentionScratch<T>& scratch);

// Overwrites dqkv_TW.
template <typename T>
void attention_backward(const Dims& d, Span span, const T* qkv_TW, const T* o_TNC, const T* log_sum_TN, const T* do_TNC,
                        T* dqkv_TW, AttentionScratch<T>& scratch, ProductScratch<T>& products);

// Cosines and sines of RoPE for positions [0, length): angle = position / factor * theta^(-2i / C), computed in double.
template <typename T>
struct RopeTable {
  RopeTable(const ModelConfig& config, int length);

  int length, half;
  AlignedBuffer<T> cosines, sines;  // [length][C / 2]
};

// QK-norm's RMSNorm units per token: of width C for each head, or of all heads of a stream together ("full").
int qk_norm_units(const ModelConfig& config);

// Normalises queries and keys as the config says and rotates them, in place. raw_TW keeps them as they were and
// scale_TU their inverse RMS, for backward (both unused without QK-norm). q_norm and k_norm are the weights.
template <typename T>
void qk_forward(const ModelConfig& config, Span span, const RopeTable<T>& rope, const T* q_norm, const T* k_norm,
                T* qkv_TW, T* raw_TW, T* scale_TU);

// Takes dqkv_TW back through both, in place; adds to the gradients of the norm weights.
template <typename T>
void qk_backward(const ModelConfig& config, Span span, const RopeTable<T>& rope, const T* q_norm, const T* k_norm,
                 const T* raw_TW, const T* scale_TU, T* dqkv_TW, T* dq_norm, T* dk_norm);

}  // namespace foe::train
