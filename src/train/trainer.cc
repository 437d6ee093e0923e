#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "base/huge_pages.h"
#include "train/rows.h"

namespace foe::train {

Trainer::Shard::Shard(const Layout& layout, int sequences, int length)
    : activations(layout, sequences, length),
      inputs(static_cast<std::size_t>(sequences) * length),
      targets(inputs.size()) {}

Trainer::Trainer(const TrainConfig& config, const TokenData& data, ThreadPool& pool)
    : config_(config),
      data_(data),
      pool_(pool),
      layout_(config.model, config.init),
      params_(large_buffer<float>(layout_.size)),
      weights_(layout_),
      optimizer_(layout_, config) {
  if (data.vocab_size > config.model.vocab_size)
    fail("model.vocab_size: expected at least the tokenizer's {}, got {}", data.vocab_size, config.model.vocab_size);
  initialise(layout_, config.seed, params_.data());
  for (int s = 0; s < config.shards; ++s) {
    shards_.push_back(std::make_unique<Shard>(layout_, shard_sequences(), config.sequence_length));
    gradients_.push_back(large_zeroed_buffer<float>(layout_.size));
  }
}

void Trainer::train_shard(int index) {
  Shard& shard = *shards_[index];
  float* gradients = gradients_[index].data();
  fill_batch(data_.train, config_, static_cast<std::uint64_t>(steps_done_), index * shard_sequences(),
             shard_sequences(), shard.inputs, shard.targets);
  const std::span<const std::int32_t> inputs = shard.inputs, targets = shard.targets;
  shard.router = forward(model(), inputs, {shard_sequences(), config_.sequence_length}, shard.activations);
  shard.nats =
      head_backward(model(), targets, 1.0f / static_cast<float>(config_.batch_tokens()), shard.activations, gradients);
  // The router losses are means over a shard, and the whole loss has their mean over shards.
  backward(model(), inputs, {config_.balance_loss / config_.shards, config_.z_loss / config_.shards}, shard.activations,
           gradients);
}

StepReport Trainer::step() {
  weights_.pack(pool_, params_.data());
  pool_.parallel_for(shards_.size(), [&](std::size_t s) { train_shard(static_cast<int>(s)); });
  StepReport report;
  for (const auto& shard : shards_) {
    report.loss += shard->nats / config_.batch_tokens();
    report.router.balance += shard->router.balance / config_.shards;
    report.router.z += shard->router.z / config_.shards;
  }
  report.gradient_norm = optimizer_.reduce(pool_, gradients_);
  report.learning_rate = learning_rate(config_, steps_done_);
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm))
    fail("step {}: training diverged: expected a finite loss and gradient norm, got {} and {}; lower the learning rate",
         steps_done_ + 1, report.loss, report.gradient_norm);
  optimizer_.update(pool_, steps_done_, report.gradient_norm, gradients_, params_.data());
  ++steps_done_;
  return report;
}

void Trainer::record_routes(RouteWriter& writer) const {
  const RouteForm form = route_form();
  const int length = config_.sequence_length, K = form.entries;
  std::vector<RoutedToken> tokens;
  std::vector<std::int32_t> rows_TW;
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    const Shard& shard = *shards_[s];
    const std::int64_t first = std::int64_t{steps_done_ - 1} * config_.batch_sequences + s * shard_sequences();
    for (int t = 0; t < shard_sequences() * length; ++t) {
      tokens.push_back({first + t / length, steps_done_ - 1, shard.inputs[t], t % length});
      rows_TW.resize(tokens.size() * form.words());
      std::int32_t* row = rows_TW.data() + rows_TW.size() - form.words();
      for (int layer = 0; layer < form.layers; ++layer) {
        const Routing<float>& routing = shard.activations.layers[layer].routing;
        std::copy_n(routing.expert_TK.data() + product(t, K), K, row + form.experts_at(layer));
        std::memcpy(row + form.weights_at(layer), routing.weight_TK.data() + product(t, K), K * sizeof(float));
      }
    }
  }
  writer.add_step(tokens, rows_TW);
}

// Sets inputs and targets to consecutive windows. Tokens after `limit` have no target.
void Trainer::fill_windows(const TokenFile& file, std::size_t limit, int stride, std::size_t first_window,
                           Shard& shard) const {
  const int length = config_.sequence_length;
  for (int s = 0; s < shard_sequences(); ++s) {
    const std::size_t window = first_window + s, begin = window * stride;
    for (int t = 0; t < length; ++t) {
      const std::size_t at = begin + t, slot = static_cast<std::size_t>(s) * length + t;
      const bool scored = at < limit && (window == 0 || t >= length - stride);
      shard.inputs[slot] = at == 0 || at > limit ? data_.end_of_text : file.tokens[at - 1];
      shard.targets[slot] = scored ? file.tokens[at] : -1;
    }
  }
}

double Trainer::evaluate(const TokenFile& file, std::size_t limit, int stride) {
  const auto length = static_cast<std::size_t>(config_.sequence_length);
  FOE_CHECK(stride >= 1 && stride <= config_.sequence_length, "stride {}", stride);
  limit = std::min(limit, file.tokens.size());
  const std::size_t windows = limit <= length ? 1 : 1 + (limit - length + stride - 1) / stride;
  weights_.pack(pool_, params_.data());
  double nats = 0;
  for (std::size_t window = 0; window < windows; window += config_.batch_sequences) {
    pool_.parallel_for(shards_.size(), [&](std::size_t s) {
      Shard& shard = *shards_[s];
      fill_windows(file, limit, stride, window + s * shard_sequences(), shard);
      forward(model(), std::span<const std::int32_t>(shard.inputs), {shard_sequences(), config_.sequence_length},
              shard.activations);
      shard.nats = head_loss(model(), std::span<const std::int32_t>(shard.targets), shard.activations);
    });
    for (const auto& shard : shards_) nats += shard->nats;
  }
  return nats / static_cast<double>(limit);
}

std::map<std::string, std::string> Trainer::identity() const {
  std::map<std::string, std::string> all = config_.identity;
  all["data.train"] = fmt::format("{} tokens, hash {:016x}", data_.train.tokens.size(), data_.fingerprint);
  return all;
}

void Trainer::save(const std::string& path) {
  save_checkpoint(path, state(), steps_done_, identity());
}

void Trainer::load(const std::string& path) {
  steps_done_ = load_checkpoint(path, state(), identity());
  if (steps_done_ > config_.steps)
    fail("{}: expected at most the {} steps of train.steps, got {} that are done", path, config_.steps, steps_done_);
}

}  // namespace foe::train
