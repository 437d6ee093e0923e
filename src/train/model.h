// The forward pass of training and its backward pass: the equations of docs/architecture.md, in the order and with the
// names of model/forward.cc, keeping what backward needs. Everything here runs on one thread; threads work on different
// shards of a batch, each with its own Activations and its own gradients.
//
// Arrays end in their shape: T tokens (sequences of one length, one below the other), D hidden, S streams (groups with
// a residual of their own, Dims::streams), W the width of queries, keys and values, N query heads, C head width, U
// QK-norm units, R = T K routed rows, F expert width, E experts, K experts per token, V vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train/attention.h"
#include "train/experts.h"
#include "train/layout.h"
#include "train/packed_weights.h"
#include "train/router.h"

namespace foe::train {

template <typename T>
struct LayerActivations {
  LayerActivations(const ModelConfig& config, int tokens);

  AlignedBuffer<T> norm1_STD, norm1_scale_ST;  // what attention reads, and the inverse RMS it was scaled by
  AlignedBuffer<T> qkv_TW, raw_TW, qk_scale_TU;
  AlignedBuffer<T> o_TNC, log_sum_TN;
  AlignedBuffer<T> residual_TD;  // r of the layer, before its experts
  AlignedBuffer<T> norm2_TD, norm2_scale_T;
  Routing<T> routing;
  AlignedBuffer<T> gate_up_R2F;
  AlignedBuffer<T> moe_STD;  // M_h
};

// All memory of one shard, allocated once.
template <typename T>
struct Activations {
  // For up to `sequences` sequences of up to `length` tokens.
  Activations(const Layout& layout, int sequences, int length);

  int max_sequences, max_length;
  Span span{0, 0};  // of the last forward
  RopeTable<T> rope;
  AlignedBuffer<T> embedded_TD;
  std::vector<LayerActivations<T>> layers;
  AlignedBuffer<T> end_TD, norm_TD, norm_scale_T;  // the last residual, and what the head reads
  std::size_t logit_stride;
  AlignedBuffer<T> logits;  // [kHeadRows][logit_stride]

  // Gradients on their way back: of r, of M_h, of a norm's output, of queries, keys and values, of attention's output.
  AlignedBuffer<T> d_residual_TD, d_moe_STD, d_norm_TD, d_attention_TD, d_qkv_TW, d_o_TNC, d_weight_TK, d_scores_TE;
  AlignedBuffer<T> d_qkv_weight;  // [stream_qkv][D]
  AlignedBuffer<T> row_D, d_row_D;
  AttentionScratch<T> attention;
  ExpertScratch<T> experts;
  ProductScratch<T> products;
};

// Rows of logits that exist at a time: the head's forward and backward run block by block, in cache.
inline constexpr int kHeadRows = 256;

template <typename T>
struct Model {
  const Layout& layout;
  const T* params;
  const PackedWeights<T>& weights;  // packed from params
};

// tokens: span.tokens() ids below the vocabulary size. Fills `a` up to norm_TD; returns both router losses, averaged
// over layers.
template <typename T>
RouterLosses forward(const Model<T>& model, std::span<const std::int32_t> tokens, Span span, Activations<T>& a);

// After forward: the sum of -log p(target) in nats over all tokens with a target (>= 0).
template <typename T>
double head_loss(const Model<T>& model, std::span<const std::int32_t> targets, Activations<T>& a);

// The same, and begins the backward pass of `scale` times that sum: d_norm_TD and the head's gradient.
template <typename T>
double head_backward(const Model<T>& model, std::span<const std::int32_t> targets, T scale, Activations<T>& a,
                     T* gradients);

// After head_backward, the rest of the backward pass: adds to `gradients` (flat, in the layout of the parameters).
// `router` says how often each router loss, averaged over layers, counts in the whole loss.
template <typename T>
void backward(const Model<T>& model, std::span<const std::int32_t> tokens, const RouterLosses& router,
              Activations<T>& a, T* gradients);

// After forward: logits_TV of all tokens.
template <typename T>
void all_logits(const Model<T>& model, const Activations<T>& a, T* logits_TV);

}  // namespace foe::train
