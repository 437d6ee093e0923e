#include "weights/model_folder.h"

#include <filesystem>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/text_file.h"
#include "weights/atomic_file.h"
#include "weights/config_json.h"

namespace foe {

void write_model_folder(const std::string& dir, const ModelConfig& config, std::vector<TensorSource> tensors,
                        const std::string& tokenizer_dir) {
  constexpr std::size_t kMaxTokenizerBytes = std::size_t{256} << 20;
  std::filesystem::create_directories(dir);
  write_tensor_file(dir + "/model.safetensors", std::move(tensors));
  write_text_file(dir + "/config.json", model_config_json(config));
  nlohmann::json generation = nlohmann::json::object();
  if (!config.eos_token_ids.empty()) generation["eos_token_id"] = config.eos_token_ids;
  if (config.bos_token_id) generation["bos_token_id"] = *config.bos_token_id;
  write_text_file(dir + "/generation_config.json", generation.dump(2) + "\n");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    if (const std::string path = tokenizer_dir + "/" + name; std::filesystem::exists(path))
      write_text_file(dir + "/" + name, read_text_file(path, kMaxTokenizerBytes));
}

}  // namespace foe
