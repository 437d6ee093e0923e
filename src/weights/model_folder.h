// Writes model folders.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "weights/tensor_writer.h"

namespace foe {

// Writes a model folder that foe can load, and transformers, too, if it knows the architecture. Makes the folder if it
// does not exist, and writes config.json, generation_config.json, model.safetensors and the tokenizer's files that
// `tokenizer_dir` has. Throws Error if the disk refuses.
void write_model_folder(const std::string& dir, const ModelConfig& config, std::vector<TensorSource> tensors,
                        const std::string& tokenizer_dir,
                        const std::map<std::string, std::string>& metadata = kDefaultMetadata);

// Is called now and then with the bytes that are written and their total.
using WriteProgress = std::function<void(std::size_t written, std::size_t total)>;

// Does the same where nothing exists yet, as a NewFolder. `files` are written as well, by their names. Throws Error in
// all of these cases.
void write_new_model_folder(const std::string& path, const ModelConfig& config, std::vector<TensorSource> tensors,
                            const std::string& tokenizer_dir, const WriteProgress& progress,
                            const std::map<std::string, std::string>& files = {},
                            const std::map<std::string, std::string>& metadata = kDefaultMetadata);

// Throws Error if something exists at `path`.
void require_new(const std::string& path);

// A new folder that exists with all of its files or not at all, even if the process is killed: it is written as
// PATH.partial, and commit() renames it. What a killed process has left at PATH.partial is replaced.
class NewFolder {
 public:
  // Throws Error if something exists at `path`, if another process is writing the same folder, or if the system
  // refuses.
  explicit NewFolder(std::string path);
  // Removes the folder unless commit() was called.
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  // The path at which to write the files.
  const std::string& partial() const { return partial_; }
  // Puts the folder in its place. To be called once, at the end.
  void commit();

 private:
  std::string path_, partial_;
  int lock_ = -1;
};

}  // namespace foe
