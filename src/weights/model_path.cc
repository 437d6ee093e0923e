#include "weights/model_path.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxConfigBytes = 16 << 20;

bool has(const fs::path& folder, const char* name) {
  std::error_code ignored;
  return fs::exists(folder / name, ignored);
}

// The files of a folder whose names satisfy `wanted`, in order.
template <typename Wanted>
std::vector<std::string> files_of(const fs::path& folder, const Wanted& wanted) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (wanted(entry.path().filename().string())) found.push_back(entry.path().string());
  std::ranges::sort(found);
  return found;
}

void refuse_pointer(const fs::path& file) {
  constexpr std::string_view kPointer = "version https://git-lfs";
  std::string beginning(kPointer.size(), '\0');
  std::ifstream(file, std::ios::binary).read(beginning.data(), static_cast<std::streamsize>(beginning.size()));
  if (beginning == kPointer)
    fail("{}: expected weights, got a pointer of git-lfs to them: run 'git lfs pull' in its folder", file.string());
}

[[noreturn]] void refuse_pytorch(const std::string& file) {
  fail(
      "{}: expected .safetensors or .gguf, got PyTorch's own format, which can run any program when it is read: take"
      " the model's safetensors, or load it with transformers and save_pretrained()",
      file);
}

// --- Hugging Face's cache

// Returns the snapshot of a folder of the cache; empty if it is none, or has none.
std::string snapshot_of(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder / "snapshots", error)) return "";
  std::string name;
  if (std::ifstream(folder / "refs" / "main") >> name; name.find_first_of("/.") == std::string::npos && !name.empty())
    if (const fs::path snapshot = folder / "snapshots" / name; fs::is_directory(snapshot, error)) return snapshot;
  const std::vector<std::string> all = files_of(folder / "snapshots", [](const std::string&) { return true; });
  return all.size() == 1 ? all[0] : "";
}

fs::path hub_cache() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value ? value : "");
  };
  if (const fs::path cache = variable("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const fs::path home = variable("HF_HOME"); !home.empty()) return home / "hub";
  return variable("HOME") / ".cache" / "huggingface" / "hub";
}

// Whether it has the form ORG/NAME.
bool is_hub_name(const std::string& text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  };
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == text.size()) return false;
  const std::string org = text.substr(0, slash), name = text.substr(slash + 1);
  return org[0] != '.' && name[0] != '.' && std::ranges::all_of(org, plain) && std::ranges::all_of(name, plain);
}

std::string find_by_name(const std::string& given) {
  if (!is_hub_name(given)) return given;
  std::string folder = "models--" + given;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path place = hub_cache() / folder;
  if (const std::string snapshot = snapshot_of(place); !snapshot.empty()) return find_model(snapshot);
  fail(
      "{0}: expected a folder or a GGUF file, and there is none; nor is it in Hugging Face's cache as {1}: download it"
      " with 'hf download {0}', or give the path of its folder",
      given, place.string());
}

// --- folders

bool is_gguf_name(const std::string& name) {
  return name.ends_with(".gguf") && !name.starts_with("mmproj");  // which is an encoder of images
}

// Returns the only GGUF model, be it in shards; empty if there is none.
std::string only_gguf(const fs::path& folder) {
  std::vector<std::string> models = files_of(folder, is_gguf_name);
  std::vector<std::string> first;
  for (const std::string& path : models)
    if (gguf_shards(path).front() == path) first.push_back(path);
  if (first.size() > 1)
    fail("{}: expected one GGUF model, got {}: give one of them, such as {}", folder.string(), first.size(), first[0]);
  return first.empty() ? "" : first[0];
}

// Models of images and text have the configuration of each in an object of its own.
void refuse_vision(const fs::path& folder) {
  const std::string path = folder / "config.json";
  const nlohmann::json config = parse_strict_json(read_text_file(path, kMaxConfigBytes), path);
  if (config.is_object() && config.contains("vision_config"))
    fail(
        "{}: expected a model of text, got one of images and text (vision_config): take its text model, if there is one"
        " by itself, or a GGUF file of it, which has the text model alone",
        path);
}

std::string find_in_folder(const std::string& given) {
  const fs::path folder(given);
  if (has(folder, "adapter_config.json") && !has(folder, "config.json"))
    fail(
        "{}: expected a model, got an adapter (LoRA) to one: merge it into its base model, as with peft's"
        " merge_and_unload(), and save that",
        given);
  for (const std::string& file : files_of(
           folder, [](const std::string& name) { return name.ends_with(".safetensors") || name.ends_with(".gguf"); }))
    refuse_pointer(file);
  if (!has(folder, "config.json")) {
    if (const std::string snapshot = snapshot_of(folder); !snapshot.empty()) return find_model(snapshot);
    if (const std::string file = only_gguf(folder); !file.empty()) return file;
    return given;
  }
  refuse_vision(folder);
  if (!has(folder, "model.safetensors") && !has(folder, "model.safetensors.index.json"))
    for (const std::string& file : files_of(folder, [](const std::string& name) {
           return (name.starts_with("pytorch_model") && name.ends_with(".bin")) || name.ends_with(".pth");
         }))
      refuse_pytorch(file);
  return given;
}

std::string find_by_file(const std::string& given) {
  refuse_pointer(given);
  if (is_gguf_path(given)) return given;
  for (const char* ending : {".bin", ".pt", ".pth", ".ckpt"})
    if (given.ends_with(ending)) refuse_pytorch(given);
  const fs::path folder = fs::path(given).has_parent_path() ? fs::path(given).parent_path() : fs::path(".");
  const bool safetensors = given.ends_with(".safetensors");
  if ((safetensors || given.ends_with("config.json")) && has(folder, "config.json")) return find_model(folder);
  fail("{}: expected a model folder or a GGUF file, got {}", given,
       safetensors ? "weights without a config.json beside them: give a folder that has both" : "another file");
}

}  // namespace

std::string find_model(const std::string& given) {
  std::error_code error;
  if (fs::is_directory(given, error)) return find_in_folder(given);
  if (fs::exists(given, error)) return find_by_file(given);
  return find_by_name(given);
}

}  // namespace foe
