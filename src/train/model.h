// The forward pass of training and its backward pass. They compute the equations of docs/architecture.md, in the order
// and with the names of model/forward.cc; the forward pass keeps what the backward pass needs. In f32 its logits are
// the bits of inference: products are the same chains, sums over experts, groups and blocks of heads the same trees,
// and attention and rows run the same kernels. Everything here runs on one thread: threads work on different shards of
// a batch, each with Activations and gradients of its own.
//
// With GroupPeers, a rank has some groups of a federated model alone: the loops over streams, heads and experts are
// over its own, and the sums over groups, which are trees over the group's index, come together over the ranks.
//
// Names of arrays end in their shape: T tokens (sequences of the same length, one after the other), D hidden, S streams
// (Dims::streams), W the width of queries, keys and values, N query heads, C head width, U norms of the QK-norm
// (qk_norm_units), R = T K routed rows, F expert width, E experts, K experts per token, V vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "train/attention.h"
#include "train/experts.h"
#include "train/group_peers.h"
#include "train/layout.h"
#include "train/packed_weights.h"
#include "train/router.h"
#include "train/sums.h"

namespace foe::train {

template <typename T>
struct LayerActivations {
  LayerActivations(const ModelConfig& config, const Dims& d, int layer, int tokens);

  AlignedBuffer<T> norm1_STD, norm1_scale_ST;  // the input of attention, and its inverse RMS
  AlignedBuffer<T> qkv_TW, raw_TW, qk_scale_TU;
  AlignedBuffer<T> o_TNC, log_sum_TN;
  AlignedBuffer<T> residual_TD;  // the residual r before the experts
  AlignedBuffer<T> own_STD;      // where groups do not sync, the updates before the experts; otherwise empty
  AlignedBuffer<T> norm2_TD, norm2_scale_T;  // where groups do not sync, of all streams, as are the routing's tokens
  Routing<T> routing;
  AlignedBuffer<T> gate_up_R2F;
  AlignedBuffer<T> moe_STD;  // M_h: the updates behind the experts
};

// Where the gradients of what the streams of a layer have in common are, in an array of one stream.
struct CommonLayout {
  CommonLayout(const ModelConfig& config, const Dims& d);

  std::size_t input_norm, post_norm, q_norm, k_norm, router;
  std::size_t norm_size, head_norm_size,
      router_size;  // 0: each stream has its own
  std::size_t size;
};

// All memory of one shard, which is allocated once.
template <typename T>
struct Activations {
  // Allocates memory for up to `sequences` sequences of up to `length` tokens. Without `peers`, which must outlive
  // this, this rank has all groups.
  Activations(const Layout& layout, int sequences, int length, GroupPeers* peers = nullptr);

  bool owns_ends() const { return !peers || peers->owns_ends(); }

  Dims dims;  // with the streams of this rank
  GroupPeers* peers;

  int max_sequences, max_length;
  Span span{0, 0};  // of the last forward()
  RopeTable<T> rope;
  AlignedBuffer<T> embedded_TD;
  std::vector<LayerActivations<T>> layers;
  AlignedBuffer<T> end_TD, norm_TD, norm_scale_T;  // the last residual, the input of the head, and its inverse RMS
  std::size_t logit_stride;
  AlignedBuffer<T> logits;  // [kHeadRows][logit_stride]

  // Sums over blocks of heads, which in a federated model are its streams, with the terms of some tokens, and where the
  // blocks begin in o. partials_TD: with peers, the partial sums of all tokens.
  TermSum block_sum;
  std::vector<int> block_begin;
  AlignedBuffer<T> terms;   // [blocks][kTermRows][D]
  AlignedBuffer<T> scaled;  // [kTermRows][N C]: what the heads of some tokens have attended to, with a factor
  AlignedBuffer<T> partials_TD;

  // Gradients of r, of M_h, of a norm's output, of queries, keys and values, and of attention's output. d_parallel_TD:
  // what experts beside attention add to that of the r that both read. d_read_STD: with several streams, what each adds
  // to the gradient of the r that its attention and its experts read, until all of them have. d_attention_STD,
  // d_added_STD: of what attention and experts add to r or M_h.
  AlignedBuffer<T> d_residual_TD, d_parallel_TD, d_read_STD, d_moe_STD, d_added_STD, d_norm_STD, d_attention_STD;
  AlignedBuffer<T> d_qkv_TW, d_o_TNC, d_weight_TK, d_scores_TE;
  // With several streams, what each adds to the gradients of what a layer's streams have in common, and with peers the
  // partial sums of all layers.
  CommonLayout common;
  AlignedBuffer<T> d_common;  // [S][common.size]
  AlignedBuffer<T> d_common_partials;
  AlignedBuffer<T> d_qkv_weight;  // [stream_qkv][D]
  AlignedBuffer<T> row_D, d_row_D;
  AttentionScratch<T> attention;
  ExpertScratch<T> experts;
  ProductScratch<T> products;
};

// How many rows of logits exist at a time: the head's forward and backward passes run block by block, in a cache.
inline constexpr int kHeadRows = 256;

// How many tokens' terms exist at a time: they stay in a cache until they are added.
inline constexpr int kTermRows = 24;

template <typename T>
struct Model {
  const Layout& layout;
  const T* params;
  const PackedWeights<T>& weights;  // packed from `params`
};

// Runs the forward pass, in f32 with the bits of inference. `tokens` has span.tokens() ids below the vocabulary size.
// With `forced`, tokens are routed by it (route() in router.h). Fills `a` up to norm_TD, and returns both router
// losses, averaged over layers. With peers, norm_TD is on the rank that owns the shard's ends alone.
template <typename T>
RouterLosses forward(const Model<T>& model, std::span<const std::int32_t> tokens, Span span, Activations<T>& a,
                     const Route* forced = nullptr);

// To be called after forward(). Returns the sum of -log p(target) in nats over all tokens that have a target (>= 0).
template <typename T>
double head_loss(const Model<T>& model, std::span<const std::int32_t> targets, Activations<T>& a);

template <typename T>
struct Distillation;

// The same, and starts the backward pass of `scale` times that sum: writes the gradient of norm_TD and adds to the
// head's gradient. With a distillation (distillation.h), the backward pass is that of its loss.
template <typename T>
double head_backward(const Model<T>& model, std::span<const std::int32_t> targets, T scale, Activations<T>& a,
                     T* gradients, Distillation<T>* distillation = nullptr);

// To be called after head_backward(), which with peers is the owner's alone. Runs the rest of the backward pass, and
// adds to `gradients` (a flat array in the layout of the parameters). `router` has the factors with which the router
// losses, averaged over layers, count in the whole loss. At the end of each stage (Stages) it calls completed(stage).
template <typename T>
void backward(
    const Model<T>& model, std::span<const std::int32_t> tokens, const RouterLosses& router, Activations<T>& a,
    T* gradients, const std::function<void(int)>& completed = [](int) {});

// To be called after forward(). Writes the logits of all tokens to logits_TV.
template <typename T>
void all_logits(const Model<T>& model, Activations<T>& a, T* logits_TV);

}  // namespace foe::train
