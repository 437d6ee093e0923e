#include "random_model.h"

#include <cmath>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "train/layout.h"
#include "weights/model_folder.h"

namespace foe {

void write_random_model(const std::string& dir, const ModelConfig& config, DType type, std::uint64_t seed,
                        const std::string& tokenizer_dir) {
  const train::Layout layout(config);
  std::vector<TensorSource> sources;
  for (const train::TensorSlot& tensor : layout.tensors) {
    const double mean = tensor.init_std == 0 ? 1 : 0, width = std::sqrt(12.0) * tensor.init_std;
    const std::uint64_t own_seed = random_bits(seed, tensor.offset);
    sources.push_back(generated_source(tensor.name, type, tensor.shape, [=](std::size_t first, std::span<float> out) {
      for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<float>(mean + width * (random_unit(own_seed, first + i) - 0.5));
    }));
  }
  write_model_folder(dir, config, std::move(sources), tokenizer_dir);
}

}  // namespace foe
