#include "weights/model_folder.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

#include <nlohmann/json.hpp>
#include <sys/file.h>

#include "base/error.h"
#include "base/text_file.h"
#include "weights/atomic_file.h"
#include "weights/config_json.h"

namespace foe {

void write_model_folder(const std::string& dir, const ModelConfig& config, std::vector<TensorSource> tensors,
                        const std::string& tokenizer_dir, const std::map<std::string, std::string>& metadata) {
  constexpr std::size_t kMaxTokenizerBytes = std::size_t{256} << 20;
  std::filesystem::create_directories(dir);
  write_tensor_file(dir + "/model.safetensors", std::move(tensors), metadata);
  write_text_file(dir + "/config.json", model_config_json(config));
  nlohmann::json generation = nlohmann::json::object();
  if (!config.eos_token_ids.empty()) generation["eos_token_id"] = config.eos_token_ids;
  if (config.bos_token_id) generation["bos_token_id"] = *config.bos_token_id;
  write_text_file(dir + "/generation_config.json", generation.dump(2) + "\n");
  const auto copy = [&](const std::string& name) {
    if (const std::string path = tokenizer_dir + "/" + name; std::filesystem::exists(path))
      write_text_file(dir + "/" + name, read_text_file(path, kMaxTokenizerBytes));
  };
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tiktoken.model", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"})
    copy(name);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(tokenizer_dir, ignored))
    if (entry.path().extension() == ".tiktoken") copy(entry.path().filename());
}

void write_new_model_folder(const std::string& path, const ModelConfig& config, std::vector<TensorSource> tensors,
                            const std::string& tokenizer_dir, const WriteProgress& progress,
                            const std::map<std::string, std::string>& files,
                            const std::map<std::string, std::string>& metadata) {
  std::size_t total = 0, written = 0;
  for (TensorSource& source : tensors) {
    std::int64_t bytes = source.type->bits / 8;
    for (const std::int64_t size : source.shape) bytes *= size;
    total += bytes;
    source.write = [&written, &total, &progress, write = std::move(source.write)](const TensorSource::Sink& sink) {
      write([&](std::span<const std::byte> piece) {
        sink(piece);
        progress(written += piece.size(), total);
      });
    };
  }
  NewFolder folder(path);
  write_model_folder(folder.partial(), config, std::move(tensors), tokenizer_dir, metadata);
  for (const auto& [name, contents] : files) write_text_file(folder.partial() + "/" + name, contents);
  folder.commit();
}

void require_new(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::exists(std::filesystem::symlink_status(path, ignored)))
    fail("{}: expected a folder that is not there yet, but it exists: choose another name, or remove it", path);
}

NewFolder::NewFolder(std::string path) : path_(std::move(path)) {
  namespace fs = std::filesystem;
  while (path_.size() > 1 && path_.ends_with('/')) path_.pop_back();
  require_new(path_);
  std::error_code error;
  partial_ = path_ + ".partial";
  fs::create_directories(partial_, error);
  if (error) fail("{}: expected to make a folder, got: {}", partial_, error.message());
  lock_ = open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0 || flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const std::string reason = errno == EWOULDBLOCK ? "another process is writing it" : std::strerror(errno);
    if (lock_ >= 0) close(lock_);
    fail("{}: expected a folder of its own, but {}", partial_, reason);
  }
  for (const fs::directory_entry& old : fs::directory_iterator(partial_, error)) fs::remove_all(old.path(), error);
}

NewFolder::~NewFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  std::filesystem::remove_all(partial_, ignored);
  close(lock_);
}

void NewFolder::commit() {
  if (fsync(lock_) != 0 || std::rename(partial_.c_str(), path_.c_str()) != 0)
    fail("{}: expected to rename it to {}, got: {}", partial_, path_, std::strerror(errno));
  close(std::exchange(lock_, -1));
}

}  // namespace foe
