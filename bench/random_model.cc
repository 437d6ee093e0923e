#include "bench/random_model.h"

#include <cmath>
#include <fstream>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "tokenizer/tokenizer.h"
#include "train/layout.h"
#include "weights/atomic_file.h"
#include "weights/model_folder.h"

namespace foe {
namespace {

// Gives ids beyond the tokenizer's the text "<id>": streams send text, so a client would not notice tokens without any.
// They are added tokens, which get the ids behind all others in the file's order: in the vocabulary they would take the
// ids of the added tokens that are there already.
void give_all_tokens_text(const std::string& path, int vocab_size) {
  const int known = Tokenizer::load(path).vocab_size();  // this has checked the file, too
  nlohmann::json json = nlohmann::json::parse(std::ifstream(path));
  nlohmann::json& added = json["added_tokens"];  // null is an empty list
  for (int id = known; id < vocab_size; ++id) {
    nlohmann::json token = {{"id", id}, {"content", fmt::format("<{}>", id)}};
    for (const char* flag : {"special", "normalized", "single_word", "lstrip", "rstrip"}) token[flag] = false;
    added.push_back(std::move(token));
  }
  write_text_file(path, json.dump());
}

}  // namespace

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
  NewFolder folder(dir);
  write_model_folder(folder.partial(), config, std::move(sources), tokenizer_dir);
  give_all_tokens_text(folder.partial() + "/tokenizer.json", config.vocab_size);
  folder.commit();
}

}  // namespace foe
