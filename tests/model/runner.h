// Runs batches through one rank of a model, without the engine.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "model/forward.h"
#include "random_model.h"

namespace foe {

// One rank of a model, with its KV cache and activations.
struct Runner {
  Model model;
  RankGrid grid;
  ThreadPool pool;
  KvCache kv;
  Activations a;

  Runner(const std::string& path, Plan plan, Communicator& c, int threads = 1, KvType kv_type = KvType::kF32)
      : Runner(load_model(path, plan, c), c, threads, kv_type) {}
  Runner(Model m, Communicator& c, int threads, KvType kv_type = KvType::kF32)
      : model(std::move(m)),
        grid(model.placement, c),
        pool(threads),
        kv(model.config.num_layers(), 64, model.kv_shape(kv_type)),
        a(model, grid.across_groups(), 400, 400) {}

  std::vector<float> run(const Batch& batch) {
    const std::span<const float> logits = forward(model, batch, kv, a, grid, pool).whole_SV;
    return {logits.begin(), logits.end()};
  }
};

// Returns the KV blocks of sequence `s` of up to eight: every eighth one, in descending order.
inline std::vector<std::int32_t> blocks_of(int s, int tokens) {
  std::vector<std::int32_t> blocks;
  for (int i = 0; i * kKvBlock < tokens; ++i) blocks.push_back(63 - (i * 8 + s) % 64);
  return blocks;
}

// Returns the logits of all rows of a sequence that runs in chunks of the given size. In plan ep, `owner` runs it.
inline std::vector<float> in_chunks(Runner& runner, const std::vector<std::int32_t>& tokens, int chunk, int owner = 0) {
  const std::vector<std::int32_t> blocks = [&] {
    std::vector<std::int32_t> all;
    for (int i = 0; i * kKvBlock < static_cast<int>(tokens.size()); ++i) all.push_back((i * 37 + 5) % 64);
    return all;
  }();
  std::vector<float> logits;
  for (std::size_t at = 0; at < tokens.size(); at += chunk) {
    const std::size_t count = std::min<std::size_t>(chunk, tokens.size() - at);
    Batch batch;
    batch.add_sequence({tokens.data() + at, count}, static_cast<int>(at), blocks, Batch::Sample::kAll, owner);
    const std::vector<float> part = runner.run(batch);
    logits.insert(logits.end(), part.begin(), part.end());
  }
  return logits;
}

// Returns the Euclidean distance of two vectors.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    squares += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return std::sqrt(squares);
}

}  // namespace foe
