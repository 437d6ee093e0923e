#include "train/data.h"

#include <bit>
#include <filesystem>
#include <fstream>
#include <numbers>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/strict_json.h"
#include "base/text_file.h"

namespace foe::train {
namespace {

constexpr std::size_t kMaxMetaBytes = 1 << 20;

std::int64_t integer(const nlohmann::json& object, const char* key, std::int64_t low, std::int64_t high,
                     const std::string& source) {
  const auto it = object.find(key);
  if (it == object.end()) fail("{}: {}: expected an integer, found none", source, key);
  if (!it->is_number_integer() || it->get<std::int64_t>() < low || it->get<std::int64_t>() > high)
    fail("{}: {}: expected an integer from {} to {}, got {}", source, key, low, high, excerpt(*it));
  return it->get<std::int64_t>();
}

std::vector<std::uint16_t> read_tokens(const std::string& path, std::int64_t count, int vocab_size) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail("{}: {}", path, error.message());
  if (size != static_cast<std::uintmax_t>(count) * 2)
    fail("{}: expected {} bytes (two for each token of meta.json), got {}", path, count * 2, size);
  std::vector<std::uint16_t> tokens(static_cast<std::size_t>(count));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(tokens.data()), static_cast<std::streamsize>(size));
  if (!in) fail("{}: cannot be read", path);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if constexpr (std::endian::native == std::endian::big)
      tokens[i] = static_cast<std::uint16_t>(tokens[i] << 8 | tokens[i] >> 8);
    if (tokens[i] >= vocab_size) fail("{}: token {}: expected an id below {}, got {}", path, i, vocab_size, tokens[i]);
  }
  return tokens;
}

TokenFile read_split(const nlohmann::json& meta, const char* split, const std::string& dir, const std::string& source,
                     int vocab_size, int length) {
  const auto it = meta.find(split);
  if (it == meta.end() || !it->is_object())
    fail("{}: {}: expected an object, got {}", source, split, it == meta.end() ? "nothing" : excerpt(*it));
  const std::string name = fmt::format("{}: {}", source, split);
  const auto file = it->find("file");
  if (file == it->end() || !file->is_string() || file->get<std::string>().find('/') != std::string::npos)
    fail("{}: file: expected a name in this folder, got {}", name, file == it->end() ? "nothing" : excerpt(*file));
  constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;
  const std::int64_t count = integer(*it, "tokens", 2 * length + 1, kMaxTokens, name);
  return {read_tokens(dir + "/" + file->get<std::string>(), count, vocab_size),
          integer(*it, "bytes", 1, kMaxTokens * 1024, name)};
}

}  // namespace

double TokenFile::bits_per_byte(double nats_per_token) const {
  return nats_per_token * static_cast<double>(tokens.size()) / static_cast<double>(bytes) / std::numbers::ln2;
}

TokenData load_token_data(const std::string& dir, int length) {
  const std::string source = dir + "/meta.json";
  const nlohmann::json meta = parse_strict_json(read_text_file(source, kMaxMetaBytes), source);
  if (!meta.is_object()) fail("{}: expected an object, got {}", source, excerpt(meta));
  TokenData data;
  data.vocab_size = static_cast<int>(integer(meta, "vocab_size", 1, 1 << 16, source));
  data.end_of_text = static_cast<std::int32_t>(integer(meta, "end_of_text", 0, data.vocab_size - 1, source));
  data.train = read_split(meta, "train", dir, source, data.vocab_size, length);
  data.valid = read_split(meta, "valid", dir, source, data.vocab_size, length);
  for (const std::uint16_t token : data.train.tokens) data.fingerprint = mix64(data.fingerprint + token + 1);
  return data;
}

std::uint64_t permute(std::uint64_t index, std::uint64_t count, std::uint64_t key) {
  FOE_CHECK(index < count, "{} of {}", index, count);
  const int half = (std::bit_width(count - 1) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  do {
    std::uint64_t left = index >> half, right = index & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const std::uint64_t next = left ^ (random_bits(key, right * 4 + round) & mask);
      left = right;
      right = next;
    }
    index = left << half | right;
  } while (index >= count);  // this ends, as the network permutes the larger range, and so every cycle comes back
  return index;
}

std::size_t window_start(std::size_t tokens, int length, std::uint64_t seed, std::uint64_t sample) {
  // The last window needs one more token as a target, and the offset takes up to length - 1 tokens.
  const std::uint64_t windows = (tokens - static_cast<std::size_t>(length)) / static_cast<std::size_t>(length);
  const std::uint64_t key = random_bits(seed, sample / windows);
  return static_cast<std::size_t>(mix64(key) % static_cast<std::uint64_t>(length) +
                                  permute(sample % windows, windows, key) * static_cast<std::uint64_t>(length));
}

void fill_batch(const TokenFile& file, const TrainConfig& config, std::uint64_t step, int first, int count,
                std::span<std::int32_t> inputs, std::span<std::int32_t> targets) {
  const int length = config.sequence_length;
  FOE_CHECK(inputs.size() == static_cast<std::size_t>(count) * length && targets.size() == inputs.size(), "{} and {}",
            inputs.size(), targets.size());
  for (int s = 0; s < count; ++s) {
    const std::uint64_t sample = step * static_cast<std::uint64_t>(config.batch_sequences) + first + s;
    const std::uint16_t* window = file.tokens.data() + window_start(file.tokens.size(), length, config.seed, sample);
    for (int t = 0; t < length; ++t) {
      inputs[static_cast<std::size_t>(s) * length + t] = window[t];
      targets[static_cast<std::size_t>(s) * length + t] = window[t + 1];
    }
  }
}

}  // namespace foe::train
