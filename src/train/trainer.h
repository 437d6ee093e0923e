// A model in training: parameters, optimiser and the memory of every shard.
//
// A batch is cut into a fixed number of shards, each with activations and gradients of its own. Ranks share the shards,
// or the groups of a federated model, or both (split.h). Shards run on any free thread, and gradients are added over
// groups and over shards as trees (exchange.h). So the bits after a step do not depend on the number of ranks or
// threads, on what ranks share, or on timing. All functions that compute are collective.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "trace/route_writer.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/data.h"
#include "train/distillation.h"
#include "train/exchange.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/set_peers.h"

namespace foe::train {

struct StepReport {
  double loss = 0;        // mean nats per token, without the router losses
  double divergence = 0;  // the mean KL divergence from the teacher's predictions, if there is a teacher
  RouterLosses router;
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
};

class Trainer {
 public:
  // The arguments must outlive this. So many ranks share the groups of the model; with 1 each has all. More threads
  // than shards of a rank speed up only the optimiser. Throws Error for a model that cannot be trained, or ranks that
  // cannot share it.
  Trainer(const TrainConfig& config, const TokenData& data, ThreadPool& pool, Communicator& comm, int group_ranks = 1);

  int steps_done() const { return steps_done_; }
  const Layout& layout() const { return layout_; }
  // Those of all groups only on rank 0, after save() or load().
  std::span<const float> params() const { return params_.span(); }

  // Runs one step. Throws Error if the loss is not finite.
  StepReport step();

  // Records what the last step's tokens were routed to. Its sequences are numbered from 0 on, over all steps.
  RouteForm route_form() const { return {layout_.dims.layers, layout_.dims.top_k}; }
  // `writer` is used on rank 0 only.
  void record_routes(RouteWriter* writer);

  // Returns the mean nats per token over the first `limit` tokens of a file. Each token is scored once, the first one
  // after end_of_text. Windows of sequence_length begin every `stride` tokens; of the first all tokens are scored, of
  // the others the last `stride`. So after the first window each token sees at least sequence_length - stride tokens
  // before it. Requires 1 <= stride <= sequence_length.
  double evaluate(const TokenFile& file, std::size_t limit, int stride);

  // Rank 0 writes or reads the file; its bytes are the same on any number of ranks.
  void save(const std::string& path);
  void load(const std::string& path);

 private:
  struct Shard {
    Shard(const Layout& layout, int sequences, int length, GroupPeers* peers);
    Activations<float> activations;
    std::vector<std::int32_t> inputs, targets;
    RouterLosses router;
    double nats = 0, divergence = 0;
    std::unique_ptr<Activations<float>> teacher;  // of the teacher, if there is one
  };

  Model<float> model() const { return {layout_, params_.data(), weights_}; }
  Model<float> teacher() const { return {teacher_->layout, teacher_->params.data(), teacher_->weights}; }
  // Rank 0's view of all state. With several ranks the moments are in `moments`, which this allocates.
  TrainState whole_state(std::array<AlignedBuffer<float>, 2>& moments);
  bool leads() const { return exchange_.rank() == 0; }
  // Returns what a checkpoint must agree with: the keys of the configuration, and the digest of the training tokens.
  std::map<std::string, std::string> identity() const;
  CheckpointFormat format() const { return checkpoint_format(layout_.config); }
  int shard_sequences() const { return config_.batch_sequences / config_.shards; }
  // The shards whose ends this rank computes, as this rank counts.
  Range own_ends() const {
    const int first = exchange_.shards().begin;
    return {exchange_.ends().begin - first, exchange_.ends().end - first};
  }
  // The number in the batch of the first sequence of this rank's shard i.
  int first_sequence(std::size_t i) const {
    return (exchange_.shards().begin + static_cast<int>(i)) * shard_sequences();
  }
  void train_shard(std::size_t i);
  StepReport reduce_losses();
  void clear_gradients();
  void fill_windows(const TokenFile& file, std::size_t limit, int stride, std::size_t first_window, Shard& shard) const;

  const TrainConfig& config_;
  const TokenData& data_;
  ThreadPool& pool_;
  Layout layout_;
  Split split_;
  SetPeers peers_;
  // Of each shard of this rank; zero between steps. They outlive the exchange, whose thread may still be adding them
  // when an error ends a step.
  std::vector<AlignedBuffer<float>> gradients_;
  Exchange exchange_;
  AlignedBuffer<float> params_;
  PackedWeights<float> weights_;
  AdamW optimizer_;
  std::optional<Teacher> teacher_;
  std::vector<std::unique_ptr<Shard>> shards_;  // of this rank
  int steps_done_ = 0;
};

}  // namespace foe::train
