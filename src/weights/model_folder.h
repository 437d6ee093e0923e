// Writes a model folder that we and transformers can load.
#pragma once

#include <string>
#include <vector>

#include "core/model_config.h"
#include "weights/tensor_writer.h"

namespace foe {

// Makes the folder if it is not there, and writes config.json, generation_config.json, model.safetensors and those of
// the tokenizer's files that `tokenizer_dir` has.
void write_model_folder(const std::string& dir, const ModelConfig& config, std::vector<TensorSource> tensors,
                        const std::string& tokenizer_dir);

// A folder that is there with all of its files or not at all, whatever kills the process: written as PATH.partial,
// which commit() renames. What a killed process has left there is replaced.
class NewFolder {
 public:
  // Throws Error where there is something at `path`, where another process is writing the same folder, or the system
  // refuses.
  explicit NewFolder(std::string path);
  // Removes it unless it was committed.
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  // Where to write until then.
  const std::string& partial() const { return partial_; }
  // Once, last.
  void commit();

 private:
  std::string path_, partial_;
  int lock_ = -1;
};

}  // namespace foe
