#include "train/checkpoint.h"

#include <charconv>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/digest.h"
#include "base/error.h"
#include "base/strict_json.h"
#include "core/model_tensors.h"
#include "train/config.h"
#include "weights/finite.h"
#include "weights/model_folder.h"
#include "weights/packed_tensors.h"
#include "weights/stored_tensors.h"
#include "weights/tensor_file.h"
#include "weights/tensor_writer.h"

namespace foe::train {
namespace {

constexpr const char* kStepKey = "steps_done";
constexpr const char* kDigestKey = "digest";
constexpr const char* kFormatKey = "format";

// Returns a digest of everything from which a run resumes.
std::string digest_of(const TrainState& state, int steps_done, const std::map<std::string, std::string>& identity) {
  Digest digest;
  for (const auto& [key, value] : identity) digest.add(key + "=" + value + "\n");
  digest.add(std::to_string(steps_done));
  for (const auto& values : {state.params, state.first, state.second}) digest.add(std::as_bytes(values));
  return fmt::format("{:016x}", digest.value());
}

void read_array(const TensorFile& file, const char* name, std::span<float> out) {
  const TensorInfo* info = file.find(name);
  if (!info) fail("{}: expected a tensor \"{}\", found none: this is not a checkpoint of a run", file.path(), name);
  const Tensor tensor = file.tensor(*info);
  if (tensor.dtype != DType::kF32 || tensor.size() != static_cast<std::int64_t>(out.size()))
    fail("{}: {}: expected {} f32 values, got {} of {}", file.path(), name, out.size(), tensor.size(),
         to_string(tensor.dtype));
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
}

void check_identity(const TensorFile& file, const std::map<std::string, std::string>& identity,
                    CheckpointFormat expected) {
  const auto& saved = file.metadata();
  if (!saved.contains(kDigestKey) || !saved.contains(kStepKey))
    fail("{}: expected the checkpoint of a run, with {} and {}, got a file without them", file.path(), kStepKey,
         kDigestKey);
  if (const auto format = saved.find(kFormatKey); format == saved.end() || format->second != std::to_string(expected))
    fail(
        "{}: expected a checkpoint of format {}, got {}: another version of foe began this run, and its steps have "
        "other bits; go on with that version, or begin again in a new run directory",
        file.path(), expected, format == saved.end() ? "none" : "format " + shorten(format->second));
  const auto value = [](const std::map<std::string, std::string>& from, const std::string& key) {
    const auto it = from.find(key);
    if (it != from.end()) return it->second;
    return std::string(key == kPrecisionKey ? to_string(DType::kF32) : "nothing");
  };
  for (const auto* keys : {&identity, &saved})
    for (const auto& [key, unused] : *keys)
      if (key != kStepKey && key != kDigestKey && key != kFormatKey && value(saved, key) != value(identity, key))
        fail("{}: {} is {} in this checkpoint and {} in the configuration: expected the same, or a new run directory",
             file.path(), key, value(saved, key), value(identity, key));
}

}  // namespace

CheckpointFormat checkpoint_format(const ModelConfig& model) {
  return model.federated() ? 4 : 3;
}

void save_checkpoint(const std::string& path, const TrainState& state, int steps_done,
                     const std::map<std::string, std::string>& identity, CheckpointFormat format) {
  std::map<std::string, std::string> metadata = identity;
  metadata[kFormatKey] = std::to_string(format);
  metadata[kStepKey] = std::to_string(steps_done);
  metadata[kDigestKey] = digest_of(state, steps_done, identity);
  const auto array = [](const char* name, std::span<const float> values) {
    return float_source(name, DType::kF32, {static_cast<std::int64_t>(values.size())}, values);
  };
  write_tensor_file(path, {array("params", state.params), array("first", state.first), array("second", state.second)},
                    metadata);
}

int load_checkpoint(const std::string& path, const TrainState& state,
                    const std::map<std::string, std::string>& identity, CheckpointFormat format) {
  const TensorFile file(path);
  check_identity(file, identity, format);
  const std::string& text = file.metadata().at(kStepKey);
  int steps = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (error != std::errc() || end != text.data() + text.size() || steps < 0)
    fail("{}: {}: expected a number of steps, got \"{}\"", path, kStepKey, shorten(text));
  read_array(file, "params", state.params);
  read_array(file, "first", state.first);
  read_array(file, "second", state.second);
  const std::string& saved = file.metadata().at(kDigestKey);
  if (const std::string found = digest_of(state, steps, identity); saved != found)
    fail("{}: expected contents with the digest {}, got {}: the file has been damaged since it was written", path,
         shorten(saved), found);
  return steps;
}

void save_model(const std::string& dir, const Layout& layout, std::span<const float> params, DType dtype,
                const std::string& tokenizer_dir) {
  std::vector<TensorSource> sources;
  std::deque<std::vector<float>> copies;  // of tensors whose parts are columns
  for (const TensorSlot& tensor : layout.tensors) {
    std::span<const float> values = params.subspan(tensor.offset, tensor.size);
    if (tensor.parts > 1 && tensor.columns > 0) {
      copy_row_major(tensor, params.data(), copies.emplace_back(tensor.size).data());
      values = copies.back();
    }
    sources.push_back(float_source(tensor.name, dtype, tensor.shape, values));
  }
  write_model_folder(dir, layout.config, std::move(sources), tokenizer_dir);
}

void load_params(ThreadPool& pool, const std::string& model_dir, const Layout& layout, float* params) {
  const TensorFolder folder(model_dir);
  const StoredTensors stored(folder, layout.config);
  check_plain(stored, layout.config);
  auto slot = layout.tensors.begin();
  std::vector<float> values;
  for_each_tensor(stored.table(), [&](const ModelTensor& row, int index) {
    const Tensor tensor = stored.find(row, index).tensor;
    require_finite(pool, tensor);
    values.resize(slot->size);
    read_floats(tensor, 0, values);
    copy_from_row_major(*slot++, values.data(), params);
  });
}

}  // namespace foe::train
