// Model folders that tests put together.
#pragma once

#include <deque>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "core/change_config.h"
#include "core/configs.h"
#include "temp_folder.h"
#include "weights/tensor_writer.h"

namespace foe {

// A model whose every tensor can be written out by hand.
inline ModelConfig own_config() {
  ModelConfig config = countable_config();
  config.hidden_size = 6;
  config.vocab_size = 5;
  set(config, &AttentionConfig::key_width, 2);
  set(config, &AttentionConfig::qk_norm, QkNorm::kFull);
  set(config, &ExpertsConfig::width, 3);
  return config;
}

// A model folder under construction: every tensor holds its serial number in its first element, and counts up from
// there.
class Builder {
 public:
  void add(const std::string& name, const std::vector<std::int64_t>& shape) {
    const auto size = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    auto& values = values_.emplace_back(static_cast<std::size_t>(size));
    std::iota(values.begin(), values.end(), 1000.0f * static_cast<float>(values_.size()));
    sources_.push_back(float_source(name, DType::kF32, shape, values));
  }
  void write(const TempFolder& folder) { write_tensor_file(folder / "model.safetensors", sources_); }

 private:
  std::deque<std::vector<float>> values_;
  std::vector<TensorSource> sources_;
};

}  // namespace foe
