#include "trace/route_file.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

constexpr int kMostLayers = 1 << 16, kMostExperts = 1 << 20, kMostEntries = 1 << 16, kMostRanks = 1 << 20;

// Reads a list of numbers in [1, most], separated by commas.
std::vector<int> numbers(const std::string& text, int most, const std::string& what) {
  std::vector<int> all;
  const char *at = text.data(), *const end = at + text.size();
  for (;;) {
    int value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || value > most || (next != end && *next != ','))
      fail("{}: expected numbers from 1 to {}, got '{}'", what, most, text.substr(0, 80));
    all.push_back(value);
    if (next == end) return all;
    at = next + 1;
  }
}

}  // namespace

template <typename T>
T RouteFile::at(std::span<const std::byte> tensor, std::int64_t i) const {
  T value;
  std::memcpy(&value, tensor.data() + static_cast<std::size_t>(i) * sizeof value, sizeof value);
  return value;
}

std::span<const std::byte> RouteFile::tensor(const char* name, const char* type,
                                             std::vector<std::int64_t> shape) const {
  for (const TensorInfo& info : header_.tensors) {
    if (info.name != name) continue;
    if (info.type->name != type) fail("{}: {}: expected type {}, got {}", source_, name, type, info.type->name);
    if (info.shape != shape)
      fail("{}: {}: expected shape {}, got {}", source_, name, to_string(shape), to_string(info.shape));
    return file_.subspan(info.begin, info.end - info.begin);
  }
  fail("{}: expected a record of routes with a tensor {}, got none", source_, name);
}

void RouteFile::read_metadata() {
  const auto value = [&](const char* key) {
    const auto it = header_.metadata.find(key);
    if (it == header_.metadata.end()) fail("{}: expected a record of routes with metadata {}, got none", source_, key);
    return it->second;
  };
  const auto number = [&](const char* key, int most) {
    const std::string what = fmt::format("{}: metadata {}", source_, key);
    const std::vector<int> all = numbers(value(key), most, what);
    if (all.size() != 1) fail("{}: expected one number, got {}", what, all.size());
    return all.front();
  };
  if (const std::string version = value("foe_routes"); version != "1")
    fail("{}: expected version 1 of a record of routes, got {}", source_, version.substr(0, 80));
  origin_ = {value("model"), value("plan"), number("ranks", kMostRanks),
             numbers(value("experts"), kMostExperts, fmt::format("{}: metadata experts", source_))};
  form_ = {.layers = number("layers", kMostLayers), .entries = number("entries", kMostEntries)};
  if (origin_.experts.size() != static_cast<std::size_t>(form_.layers))
    fail("{}: expected numbers of experts of {} layers, got {}", source_, form_.layers, origin_.experts.size());
}

RouteFile::RouteFile(std::span<const std::byte> file, std::string source)
    : file_(file), source_(std::move(source)), header_(parse_safetensors_header(file, source_)) {
  read_metadata();
  const auto last_size = [&](const char* name) {  // 0: there is no such tensor
    for (const TensorInfo& info : header_.tensors) {
      if (info.name != name) continue;
      if (info.shape.size() != 3 || info.shape[2] < 1 || info.shape[2] > kMostExperts)
        fail("{}: {}: expected shape [tokens, layers, from 1 to {}], got {}", source_, name, kMostExperts,
             to_string(info.shape));
      return static_cast<int>(info.shape[2]);
    }
    return 0;
  };
  for (const TensorInfo& info : header_.tensors)
    if (info.name == "sequences" && info.shape.size() == 1) tokens_ = info.shape[0];
  const std::int64_t L = form_.layers, K = form_.entries;
  sequences_ = tensor("sequences", "I64", {tokens_});
  positions_ = tensor("positions", "I32", {tokens_});
  ids_ = tensor("tokens", "I32", {tokens_});
  tensor("steps", "I64", {tokens_});
  tensor("owners", "I32", {tokens_});
  experts_ = tensor("experts", "I32", {tokens_, L, K});
  weights_ = tensor("weights", "F32", {tokens_, L, K});
  form_.scores = last_size("scores");
  form_.inputs = last_size("inputs");
  if (form_.scores > 0) tensor("scores", "F32", {tokens_, L, form_.scores});
  if (form_.inputs > 0) tensor("inputs", "F32", {tokens_, L, form_.inputs});
  check_order();
}

void RouteFile::check_order() const {
  for (std::int64_t i = 0; i < tokens_; ++i) {
    const auto sequence = at<std::int64_t>(sequences_, i);
    const auto position = at<std::int32_t>(positions_, i);
    const std::int64_t before = i == 0 ? sequence : at<std::int64_t>(sequences_, i - 1);
    if (sequence < before)
      fail("{}: token {}: expected sequences to ascend, got {} after {}", source_, i, sequence, before);
    if (position < 0) fail("{}: token {}: expected a position of at least 0, got {}", source_, i, position);
    if (i > 0 && sequence == before && position <= at<std::int32_t>(positions_, i - 1))
      fail("{}: token {}: expected positions to ascend, got {} after {}", source_, i, position,
           at<std::int32_t>(positions_, i - 1));
  }
}

std::vector<std::int64_t> RouteFile::sequences() const {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < tokens_; ++i)
    if (const auto sequence = at<std::int64_t>(sequences_, i); all.empty() || all.back() != sequence)
      all.push_back(sequence);
  return all;
}

void RouteFile::check_entries(const Route& route, int position, int layer) const {
  const std::size_t K = route.entries, first = (static_cast<std::size_t>(position) * route.layers + layer) * K;
  const std::int32_t* experts = route.experts_TLK.data() + first;
  const auto refuse = [&](const std::string& message) {
    fail("{}: position {}, layer {}: {}", source_, position, layer, message);
  };
  for (std::size_t i = 0; i < K; ++i) {
    const std::int32_t before = i > 0 ? experts[i - 1] : kNoExpert;
    if (experts[i] < 0) {
      const bool right =
          experts[i] == kNotRun ? i == 0 || before == kNotRun : experts[i] == kNoExpert && before != kNotRun;
      if (!right)
        refuse(fmt::format("expected {} behind the last expert, or {} in place of all, got {}", kNoExpert, kNotRun,
                           experts[i]));
      continue;
    }
    if (i > 0 && before < 0) refuse(fmt::format("expected experts before {}, got {} behind it", before, experts[i]));
    if (experts[i] >= origin_.experts[layer])
      refuse(fmt::format("expected experts in [0, {}), got {}", origin_.experts[layer], experts[i]));
    if (experts[i] <= before)
      refuse(fmt::format("expected ascending experts, each once, got {} after {}", experts[i], before));
    const float weight = route.weights_TLK[first + i];
    if (!std::isfinite(weight) || weight < 0)
      refuse(fmt::format("expected a weight that is finite and not negative, got {}", weight));
  }
}

SequenceRoute RouteFile::route(std::int64_t sequence) const {
  std::int64_t begin = 0, end = 0;
  while (begin < tokens_ && at<std::int64_t>(sequences_, begin) != sequence) ++begin;
  for (end = begin; end < tokens_ && at<std::int64_t>(sequences_, end) == sequence; ++end)
    if (const auto position = at<std::int32_t>(positions_, end); position != end - begin)
      fail("{}: sequence {}: expected position {}, got {}: some are missing", source_, sequence, end - begin, position);
  if (begin == end) fail("{}: expected sequence {} to be in it, got {} others", source_, sequence, sequences().size());
  SequenceRoute result{.model = origin_.model, .tokens = {}, .route = {form_.layers, form_.entries, {}, {}}};
  const std::size_t count = end - begin, size = static_cast<std::size_t>(form_.layers) * form_.entries;
  result.tokens.resize(count);
  result.route.experts_TLK.resize(count * size);
  result.route.weights_TLK.resize(count * size);
  std::memcpy(result.tokens.data(), ids_.data() + 4 * begin, 4 * count);
  std::memcpy(result.route.experts_TLK.data(), experts_.data() + 4 * begin * size, 4 * count * size);
  std::memcpy(result.route.weights_TLK.data(), weights_.data() + 4 * begin * size, 4 * count * size);
  for (std::size_t t = 0; t < count; ++t)
    for (int layer = 0; layer < form_.layers; ++layer) check_entries(result.route, static_cast<int>(t), layer);
  return result;
}

SequenceRoute RouteFile::route() const {
  const std::vector<std::int64_t> all = sequences();
  if (all.size() != 1)
    fail("{}: expected the record of one sequence, got {}{}", source_, all.size(),
         all.empty() ? "" : fmt::format(": {}, ..., {}", all.front(), all.back()));
  return route(all.front());
}

SequenceRoute load_route(const std::string& path, std::optional<std::int64_t> sequence) {
  const TensorFile file(path);
  const RouteFile record(file.bytes(), path);
  return sequence ? record.route(*sequence) : record.route();
}

}  // namespace foe
