// The tensors of a model: of a folder with model.safetensors, or the shards that model.safetensors.index.json lists; or
// of a GGUF file, or its shards NAME-00001-of-0000N.gguf, of which any may be given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/tensor_file.h"

namespace foe {

// Maps every file and checks every header; reads no data. All const functions may run on any number of threads. Tensors
// are views that live as long as the TensorFolder, wherever it is moved.
class TensorFolder {
 public:
  // Throws Error naming the file, what was expected and what was found. Of a folder with both, the single file counts.
  explicit TensorFolder(const std::string& model_dir);

  bool contains(std::string_view name) const { return places_.find(name) != places_.end(); }
  // The first name, in alphabetical order, that begins so; empty where none does.
  std::string_view first_with(std::string_view beginning) const;
  // The names of all tensors, in alphabetical order; views as long as the TensorFolder.
  std::vector<std::string_view> names() const;
  // None where there is no such tensor. Throws Error where its type cannot be used as weights.
  std::optional<Tensor> find(std::string_view name) const;
  // Throws Error where there is no such tensor, or where it has another shape or such a type.
  Tensor tensor(const std::string& name, const std::vector<std::int64_t>& expected_shape) const;

  // The bytes of a tensor of type U8; Error where there is no such tensor or its shape or type is another.
  std::span<const std::byte> bytes(const std::string& name, const std::vector<std::int64_t>& expected_shape) const;

  // Frees the memory behind what was read so far (TensorFile::drop_pages).
  void drop_pages() const {
    for (const TensorFile& file : files_) file.drop_pages();
  }

  const std::string& model_dir() const { return model_dir_; }  // the folder, or the GGUF file that was given
  // The keys of the GGUF file, or of its first shard; null if it is a folder.
  const GgufMetadata* gguf() const { return files_.empty() ? nullptr : files_[0].gguf(); }
  const std::vector<TensorFile>& files() const { return files_; }

 private:
  struct Place {
    std::size_t file, tensor;  // indices into files_ and its tensors()
  };
  void check_shape(const std::string& name, const std::vector<std::int64_t>* shape,
                   const std::vector<std::int64_t>& expected) const;
  void open_single(const std::string& path);
  void open_shards(const std::string& index_path);
  void open_gguf(const std::string& path);

  std::string model_dir_;
  std::vector<TensorFile> files_;
  std::map<std::string, Place, std::less<>> places_;
  // Tensors that the index has and their shards have not, by shard. Tools leave such names behind: of a head that is
  // tied to the embedding, or of rotary frequencies. It is an error only where such a tensor is wanted.
  std::map<std::string, std::string> absent_;
};

}  // namespace foe
