// One model in training: parameters, optimiser and the memory of every shard.
//
// A batch is cut into a fixed number of shards, each with its own activations and gradients; shards run on whatever
// thread is free, and their gradients are added in order. So the bits after a step depend on neither threads nor
// timing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/data.h"
#include "train/model.h"
#include "train/optimizer.h"

namespace foe::train {

struct StepReport {
  double loss = 0;  // mean nats per token, without the router losses
  RouterLosses router;
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
};

class Trainer {
 public:
  // The config and the data must outlive the trainer. Threads past the number of shards help only the optimiser.
  Trainer(const TrainConfig& config, const TokenData& data, ThreadPool& pool);

  int steps_done() const { return steps_done_; }
  const Layout& layout() const { return layout_; }
  std::span<const float> params() const { return params_.span(); }

  // One optimiser step. Throws Error when the loss is no longer a number.
  StepReport step();

  // Mean nats per token over the first `limit` tokens of a file, each token scored once. Windows of sequence_length
  // begin every `stride` tokens; the first is scored whole, the others in their last `stride` tokens, so a token sees
  // at least sequence_length - stride tokens before it. The first token follows end_of_text. 1 <= stride <=
  // sequence_length.
  double evaluate(const TokenFile& file, std::size_t limit, int stride);

  void save(const std::string& path);
  void load(const std::string& path);

 private:
  struct Shard {
    Shard(const Layout& layout, int sequences, int length);
    Activations<float> activations;
    std::vector<std::int32_t> inputs, targets;
    RouterLosses router;
    double nats = 0;
  };

  Model<float> model() const { return {layout_, params_.data(), weights_}; }
  TrainState state() { return {params_.span(), optimizer_.first.span(), optimizer_.second.span()}; }
  // What a checkpoint must agree with: the configuration's keys, and the training tokens.
  std::map<std::string, std::string> identity() const;
  int shard_sequences() const { return config_.batch_sequences / config_.shards; }
  void train_shard(int index);
  void fill_windows(const TokenFile& file, std::size_t limit, int stride, std::size_t first_window, Shard& shard) const;

  const TrainConfig& config_;
  const TokenData& data_;
  ThreadPool& pool_;
  Layout layout_;
  AlignedBuffer<float> params_;
  PackedWeights<float> weights_;
  AdamW optimizer_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<AlignedBuffer<float>> gradients_;  // of each shard
  int steps_done_ = 0;
};

}  // namespace foe::train
