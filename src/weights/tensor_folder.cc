#include "weights/tensor_folder.h"

#include <filesystem>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxIndexBytes = 64 << 20;

json read_weight_map(const std::string& index_path) {
  const json root = parse_strict_json(read_text_file(index_path, kMaxIndexBytes), index_path);
  const auto map = root.find("weight_map");  // the end where root is not an object
  if (map == root.end() || !map->is_object())
    fail("{}: expected an object weight_map, got {}", index_path, map == root.end() ? "none" : excerpt(*map));
  return *map;
}

// A shard lies in the folder of its index: a name that leads elsewhere would read files that nobody offered.
void check_shard_name(const json& name, const std::string& tensor, const std::string& index_path) {
  const bool plain = name.is_string() && !name.get_ref<const std::string&>().empty() &&
                     name.get_ref<const std::string&>().find('/') == std::string::npos &&
                     name.get_ref<const std::string&>().find("..") == std::string::npos &&
                     name.get_ref<const std::string&>().find('\0') == std::string::npos;
  if (!plain)
    fail("{}: weight_map: {}: expected the name of a file in the same folder, got {}", index_path,
         excerpt(json(tensor)), excerpt(name));
}

}  // namespace

TensorFolder::TensorFolder(const std::string& model_dir) : model_dir_(model_dir) {
  if (is_gguf_path(model_dir)) {
    open_gguf(model_dir);
    return;
  }
  const std::string single = model_dir + "/model.safetensors";
  const std::string index = model_dir + "/model.safetensors.index.json";
  if (std::filesystem::exists(single)) {
    open_single(single);
  } else if (std::filesystem::exists(index)) {
    open_shards(index);
  } else {
    fail("{}: expected model.safetensors or model.safetensors.index.json, got neither", model_dir);
  }
}

void TensorFolder::open_single(const std::string& path) {
  files_.emplace_back(path);
  const auto& tensors = files_[0].tensors();
  for (std::size_t i = 0; i < tensors.size(); ++i) places_.emplace(tensors[i].name, Place{0, i});
}

void TensorFolder::open_shards(const std::string& index_path) {
  const json weight_map = read_weight_map(index_path);
  std::map<std::string, std::size_t> opened;
  for (const auto& [tensor, name] : weight_map.items()) {
    check_shard_name(name, tensor, index_path);
    const auto& shard = name.get_ref<const std::string&>();
    const auto [it, is_new] = opened.emplace(shard, files_.size());
    if (is_new) files_.emplace_back(model_dir_ + "/" + shard);
    const TensorFile& file = files_[it->second];
    const TensorInfo* info = file.find(tensor);
    if (info) {
      places_.emplace(tensor, Place{it->second, static_cast<std::size_t>(info - file.tensors().data())});
    } else {
      absent_.emplace(tensor, shard);
    }
  }
}

void TensorFolder::open_gguf(const std::string& path) {
  for (const std::string& shard : gguf_shards(path)) {
    const std::size_t number = files_.size();
    const TensorFile& file = files_.emplace_back(shard);
    if (!file.gguf()) fail("{}: expected a GGUF file, got another one", shard);
    for (std::size_t i = 0; i < file.tensors().size(); ++i)
      if (const std::string& name = file.tensors()[i].name; !places_.emplace(name, Place{number, i}).second)
        fail("{}: {}: expected a tensor in one of the shards, got it in two", shard, name);
  }
  check_gguf_shards(files_, places_.size());
}

std::string_view TensorFolder::first_with(std::string_view beginning) const {
  const auto it = places_.lower_bound(beginning);
  return it != places_.end() && it->first.starts_with(beginning) ? std::string_view(it->first) : std::string_view();
}

std::vector<std::string_view> TensorFolder::names() const {
  std::vector<std::string_view> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

std::optional<Tensor> TensorFolder::find(std::string_view name) const {
  const auto it = places_.find(name);
  if (it == places_.end()) return std::nullopt;
  const TensorFile& file = files_[it->second.file];
  return file.tensor(file.tensors()[it->second.tensor]);
}

void TensorFolder::check_shape(const std::string& name, const std::vector<std::int64_t>* shape,
                               const std::vector<std::int64_t>& expected) const {
  if (const auto absent = absent_.find(name); !shape && absent != absent_.end())
    fail("{}: {}: expected a tensor of shape {} in {}, where the index has it, got a file without it", model_dir_, name,
         to_string(expected), absent->second);
  if (!shape) fail("{}: {}: expected a tensor of shape {}, got no such tensor", model_dir_, name, to_string(expected));
  if (*shape != expected)
    fail("{}: {}: expected shape {}, got {}", model_dir_, name, to_string(expected), to_string(*shape));
}

Tensor TensorFolder::tensor(const std::string& name, const std::vector<std::int64_t>& expected_shape) const {
  std::optional<Tensor> tensor = find(name);
  check_shape(name, tensor ? &tensor->shape : nullptr, expected_shape);
  return *std::move(tensor);
}

std::span<const std::byte> TensorFolder::bytes(const std::string& name,
                                               const std::vector<std::int64_t>& expected_shape) const {
  const auto it = places_.find(name);
  const TensorFile* file = it == places_.end() ? nullptr : &files_[it->second.file];
  const TensorInfo* info = file ? &file->tensors()[it->second.tensor] : nullptr;
  check_shape(name, info ? &info->shape : nullptr, expected_shape);
  if (info->type->name != "U8") fail("{}: {}: expected bytes of type U8, got {}", model_dir_, name, info->type->name);
  return file->bytes(*info);
}

}  // namespace foe
