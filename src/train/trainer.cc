#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "base/huge_pages.h"
#include "train/rows.h"

namespace foe::train {

Trainer::Shard::Shard(const Layout& layout, int sequences, int length, GroupPeers* peers)
    : activations(layout, sequences, length, peers),
      inputs(static_cast<std::size_t>(sequences) * length),
      targets(inputs.size()) {}

Trainer::Trainer(const TrainConfig& config, const TokenData& data, ThreadPool& pool, Communicator& comm,
                 int group_ranks)
    : config_(config),
      data_(data),
      pool_(pool),
      layout_(config.model, config.init),
      split_(config.shards, layout_.dims.streams, comm.size(), group_ranks),
      peers_(split_, comm, pool.threads()),
      exchange_(layout_, split_, comm),
      params_(large_buffer<float>(layout_.size)),
      weights_(layout_, config.precision, Dims(config.model, split_.streams(comm.rank()))),
      optimizer_(exchange_.own_pieces(), exchange_.parts().moments(comm.rank()), config) {
  if (data.vocab_size > config.model.vocab_size)
    fail("model.vocab_size: expected at least the tokenizer's {}, got {}", data.vocab_size, config.model.vocab_size);
  initialise(layout_, config.seed, params_.data(), split_.streams(comm.rank()));
  if (!config.init_from.empty()) load_params(pool, config.init_from, layout_, params_.data());
  if (!config.distill_from.empty()) teacher_.emplace(pool, config.distill_from, config.model.vocab_size);
  for (int s = 0; s < exchange_.shards().size(); ++s) {
    shards_.push_back(std::make_unique<Shard>(layout_, shard_sequences(), config.sequence_length, peers_.of_shard(s)));
    gradients_.push_back(large_buffer<float>(layout_.size));
    if (teacher_ && own_ends().contains(s))
      shards_.back()->teacher =
          std::make_unique<Activations<float>>(teacher_->layout, shard_sequences(), config.sequence_length);
  }
  clear_gradients();
}

void Trainer::train_shard(std::size_t i) {
  Shard& shard = *shards_[i];
  float* gradients = gradients_[i].data();
  fill_batch(data_.train, config_, static_cast<std::uint64_t>(steps_done_), first_sequence(i), shard_sequences(),
             shard.inputs, shard.targets);
  const std::span<const std::int32_t> inputs = shard.inputs, targets = shard.targets;
  const Span span{shard_sequences(), config_.sequence_length};
  const float scale = 1.0f / static_cast<float>(config_.batch_tokens());
  shard.router = forward(model(), inputs, span, shard.activations);
  if (!own_ends().contains(static_cast<int>(i))) {
    // Another rank has the shard's loss.
  } else if (teacher_) {
    forward(teacher(), inputs, span, *shard.teacher);
    Distillation<float> distillation(teacher(), *shard.teacher, static_cast<float>(config_.distill_weight));
    shard.nats = head_backward(model(), targets, scale, shard.activations, gradients, &distillation);
    shard.divergence = distillation.divergence;
  } else {
    shard.nats = head_backward(model(), targets, scale, shard.activations, gradients);
  }
  // The router losses are means over a shard, and the whole loss has their mean over shards.
  backward(model(), inputs, {config_.balance_loss / config_.shards, config_.z_loss / config_.shards}, shard.activations,
           gradients, [this](int stage) { exchange_.arrive(stage); });
}

StepReport Trainer::step() {
  weights_.pack(pool_, params_.data());
  exchange_.begin(gradients_);
  peers_.run(pool_, [&](std::size_t i) { train_shard(i); });
  exchange_.finish(pool_);
  StepReport report = reduce_losses();
  const float* gradient = gradients_[0].data();
  report.gradient_norm = std::sqrt(tree_sum(exchange_.all_of_pieces(optimizer_.squares(pool_, gradient))));
  report.learning_rate = learning_rate(config_, steps_done_);
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm))
    fail("step {}: training diverged: expected a finite loss and gradient norm, got {} and {}; lower the learning rate",
         steps_done_ + 1, report.loss, report.gradient_norm);
  optimizer_.update(pool_, steps_done_, report.gradient_norm, gradient, params_.data());
  exchange_.share_params(params_.data());
  clear_gradients();
  ++steps_done_;
  return report;
}

// Returns the losses of all shards, each a tree over them.
StepReport Trainer::reduce_losses() {
  constexpr std::size_t kLosses = 4;
  std::vector<double> own;
  for (int i = own_ends().begin; i < own_ends().end; ++i) {
    const Shard& shard = *shards_[i];
    own.insert(own.end(), {shard.nats, shard.router.balance, shard.router.z, shard.divergence});
  }
  const std::vector<double> all = exchange_.all_of_shards(own, kLosses);
  const auto sum = [&](std::size_t loss) {
    std::vector<double> terms;
    for (std::size_t i = loss; i < all.size(); i += kLosses) terms.push_back(all[i]);
    return tree_sum(terms);
  };
  StepReport report;
  report.loss = sum(0) / config_.batch_tokens();
  report.router = {sum(1) / config_.shards, sum(2) / config_.shards};
  report.divergence = sum(3) / config_.batch_tokens();
  return report;
}

// What this rank has no part in, it does not touch.
void Trainer::clear_gradients() {
  const std::span<const Piece> pieces = exchange_.parts().pieces();
  pool_.parallel_for(gradients_.size() * pieces.size(), [&](std::size_t i) {
    const Piece& piece = pieces[i % pieces.size()];
    if (exchange_.has(piece)) std::fill_n(gradients_[i / pieces.size()].data() + piece.offset, piece.size, 0.0f);
  });
}

void Trainer::record_routes(RouteWriter* writer) {
  const RouteForm form = route_form();
  const int length = config_.sequence_length, K = form.entries, batch = config_.batch_sequences * length;
  std::vector<RoutedToken> tokens, all_tokens(leads() ? batch : 0);
  std::vector<std::int32_t> rows_TW, all_rows_TW(leads() ? batch * form.words() : 0);
  for (int i = own_ends().begin; i < own_ends().end; ++i) {
    const Shard& shard = *shards_[i];
    const std::int64_t first = std::int64_t{steps_done_ - 1} * config_.batch_sequences + first_sequence(i);
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
  const std::size_t shard_tokens = product(shard_sequences(), length);
  exchange_.gather_shards(std::as_bytes(std::span(tokens)), shard_tokens * sizeof(RoutedToken),
                          std::as_writable_bytes(std::span(all_tokens)));
  exchange_.gather_shards(std::as_bytes(std::span(rows_TW)), shard_tokens * form.words() * sizeof(std::int32_t),
                          std::as_writable_bytes(std::span(all_rows_TW)));
  if (leads()) writer->add_step(all_tokens, all_rows_TW);
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
  const std::size_t batches = (windows + config_.batch_sequences - 1) / config_.batch_sequences;
  std::vector<double> own(own_ends().size() * batches);  // a number of nats for each shard and batch of windows
  for (std::size_t batch = 0; batch < batches; ++batch)
    peers_.run(pool_, [&](std::size_t i) {
      Shard& shard = *shards_[i];
      fill_windows(file, limit, stride, batch * config_.batch_sequences + first_sequence(i), shard);
      forward(model(), std::span<const std::int32_t>(shard.inputs), {shard_sequences(), config_.sequence_length},
              shard.activations);
      if (own_ends().contains(static_cast<int>(i)))
        own[(i - own_ends().begin) * batches + batch] =
            head_loss(model(), std::span<const std::int32_t>(shard.targets), shard.activations);
    });
  return tree_sum(exchange_.all_of_shards(own, batches)) / static_cast<double>(limit);
}

std::map<std::string, std::string> Trainer::identity() const {
  std::map<std::string, std::string> all = config_.identity;
  all["data.train"] = fmt::format("{} tokens, hash {:016x}", data_.train.tokens.size(), data_.fingerprint);
  return all;
}

TrainState Trainer::whole_state(std::array<AlignedBuffer<float>, 2>& moments) {
  if (exchange_.ranks() == 1) return {params_.span(), optimizer_.first.span(), optimizer_.second.span()};
  if (leads())
    for (AlignedBuffer<float>& all : moments) all = large_zeroed_buffer<float>(layout_.size);
  return {params_.span(), moments[0].span(), moments[1].span()};
}

void Trainer::save(const std::string& path) {
  std::array<AlignedBuffer<float>, 2> moments;
  const TrainState state = whole_state(moments);
  if (exchange_.ranks() > 1) {
    exchange_.gather_params(params_.data());
    exchange_.gather_moments(optimizer_.first.data(), state.first.data());
    exchange_.gather_moments(optimizer_.second.data(), state.second.data());
  }
  if (leads()) save_checkpoint(path, state, steps_done_, identity(), format());
}

void Trainer::load(const std::string& path) {
  std::array<AlignedBuffer<float>, 2> moments;
  const TrainState state = whole_state(moments);
  if (leads()) steps_done_ = load_checkpoint(path, state, identity(), format());
  if (exchange_.ranks() > 1) {
    steps_done_ = exchange_.from_lead(steps_done_);
    exchange_.spread_params(params_.data());
    exchange_.scatter_moments(state.first.data(), optimizer_.first.data());
    exchange_.scatter_moments(state.second.data(), optimizer_.second.data());
  }
  if (steps_done_ > config_.steps)
    fail("{}: expected at most the {} steps of train.steps, got {} that are done", path, config_.steps, steps_done_);
}

}  // namespace foe::train
