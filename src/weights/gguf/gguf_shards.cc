#include "weights/gguf/gguf_shards.h"

#include <array>
#include <charconv>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "base/error.h"

namespace foe {
namespace {

constexpr std::string_view kEnding = ".gguf";
constexpr std::size_t kDigits = 5;
constexpr int kMaxShards = 9999;

// Reads the five digits at `at`; -1 if there are others.
int number_at(std::string_view text, std::size_t at) {
  int number = -1;
  const char* const end = text.data() + at + kDigits;
  const auto [stopped, error] = std::from_chars(text.data() + at, end, number);
  return error == std::errc() && stopped == end && number >= 0 ? number : -1;
}

}  // namespace

bool is_gguf_path(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return false;
  if (path.ends_with(kEnding)) return true;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  return is_gguf(std::as_bytes(std::span(magic)));
}

std::vector<std::string> gguf_shards(const std::string& path) {
  constexpr std::string_view kOf = "-of-";
  constexpr std::size_t kTail = 1 + kDigits + kOf.size() + kDigits + kEnding.size();  // "-00001-of-00002.gguf"
  if (path.size() < kTail) return {path};
  const std::size_t tail = path.size() - kTail, of = tail + 1 + kDigits;
  const int shard = number_at(path, tail + 1), shards = number_at(path, of + kOf.size());
  if (path[tail] != '-' || path.substr(of, kOf.size()) != kOf || shard < 0 || shards < 0) return {path};
  if (shard < 1 || shard > shards || shards > kMaxShards)
    fail("{}: expected the name of a shard from 1 to its number of shards, which is at most {}, got {} of {}", path,
         kMaxShards, shard, shards);
  std::vector<std::string> paths;
  for (int i = 1; i <= shards; ++i) {
    paths.push_back(fmt::format("{}-{:05}-of-{:05}{}", path.substr(0, tail), i, shards, kEnding));
    if (!std::filesystem::exists(paths.back()))
      fail("{}: expected all {} shards in one folder, got no {}", path, shards, paths.back());
  }
  return paths;
}

void check_gguf_shards(std::span<const TensorFile> files, std::size_t tensors) {
  for (std::size_t i = 0; i < files.size(); ++i) {
    const GgufMetadata& metadata = *files[i].gguf();
    const auto count = static_cast<std::int64_t>(files.size());
    if (const auto said = metadata.integer("split.count").value_or(1); said != count && !(count == 1 && said == 0))
      fail(
          "{}: split.count: expected {}, as there are files, got {}: give it the name NAME-{:05}-of-{:05}.gguf, and put"
          " the other shards beside it",
          files[i].path(), count, said, metadata.integer("split.no").value_or(0) + 1, said);
    if (const auto said = metadata.integer("split.no").value_or(0); said != static_cast<std::int64_t>(i))
      fail("{}: split.no: expected {}, as its name says, got {}", files[i].path(), i, said);
    const auto said = metadata.integer("split.tensors.count").value_or(static_cast<std::int64_t>(tensors));
    if (said != static_cast<std::int64_t>(tensors))
      fail("{}: split.tensors.count: expected {}, as the files have, got {}", files[i].path(), tensors, said);
  }
}

}  // namespace foe
