#include "weights/packed_tensors.h"

#include <fmt/format.h>

#include "base/error.h"
#include "weights/layer_tensors.h"

namespace foe {
namespace {

// Returns the LAYOUT of a format.
const char* layout_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
      return "int8x128";
    case WeightFormat::kInt4:
      return "int4x128";
    default:
      return to_string(format);
  }
}

StoredFormat stored_format(const TensorFolder& folder, const std::string& name, const auto& stored) {
  if (const auto format = packed_format(folder, name)) return {*format, true};
  if (const auto other = folder.first_with(name + ".panels."); !other.empty())
    fail("{}: expected a layout that this version of foe has, got {}: convert the original model again",
         folder.model_dir(), other);
  return {format_of(stored().dtype), false};
}

}  // namespace

StoredMatrix matrix(const Tensor& tensor) {
  const int rows = static_cast<int>(tensor.shape[0]), depth = static_cast<int>(tensor.shape[1]);
  return {tensor.dtype, tensor.bytes.data(), static_cast<std::size_t>(depth) * size_of(tensor.dtype), rows, depth};
}

std::string packed_name(const std::string& name, WeightFormat format) {
  return name + ".panels." + layout_of(format);
}

std::optional<WeightFormat> packed_format(const TensorFolder& folder, const std::string& name) {
  for (const WeightFormat format : kWeightFormats)
    if (folder.contains(packed_name(name, format))) return format;
  return std::nullopt;
}

PackedMatrix packed_tensor(const TensorFolder& folder, const std::string& name, WeightFormat format, int matrices,
                           int index, int rows, int depth) {
  PackedMatrix w{format, rows, depth, nullptr, panel_bytes(format, depth), {}};
  const auto bytes =
      folder.bytes(packed_name(name, format), {matrices, w.panels(), static_cast<std::int64_t>(w.panel_stride)});
  w.data = bytes.data() + index * w.bytes();
  return w;
}

int attention_matrices(const ModelConfig& config) {
  return config.federated() ? config.expert_groups : 1;
}

std::string packed_expert_name(const ModelConfig& config, int layer, int expert) {
  const std::string prefix = layer_prefix(config, layer) + "mlp.";
  if (config.dense()) return prefix;
  const ExpertTable table = expert_table(config, layer);
  if (table.kind_of(expert) == ExpertKind::kShared)
    return fmt::format("{}shared_experts.{}.", prefix, table.shared_index(expert));
  return fmt::format("{}experts.{}.", prefix, table.routed_index(expert));
}

StoredFormats stored_formats(const TensorFolder& folder, const ModelConfig& config) {
  return {.attention = stored_format(folder, layer_prefix(config, 0) + "self_attn.q_proj",
                                     [&] { return attention_tensors(folder, config, 0).q; }),
          .experts = stored_format(folder, packed_expert_name(config, 0, 0) + "down_proj",
                                   [&] { return expert_tensors(folder, config, 0, 0).down; }),
          .head = stored_format(folder, kHeadName, [&] { return head_tensor(folder, config); })};
}

WeightFormats formats_in_memory(const TensorFolder& folder, const StoredFormats& stored, const FormatChoice& choice) {
  const auto of = [&](const char* part, const StoredFormat& in_file, std::optional<WeightFormat> asked) {
    if (in_file.packed && asked.value_or(in_file.format) != in_file.format)
      fail("{}: {} packed as {} in the file and cannot become {}: convert or quantise the original model",
           folder.model_dir(), part, to_string(in_file.format), to_string(*asked));
    return asked.value_or(in_file.format);
  };
  return {of("attention is", stored.attention, choice.attention), of("experts are", stored.experts, choice.experts),
          of("the head is", stored.head, choice.head)};
}

PackedMatrix packed_part(const PackedMatrix& w, const std::string& name, Range rows, Range columns) {
  const int block = block_depth(w.format);
  if (rows.size() == 0 || columns.size() == 0) return w.view(0, rows.size(), 0, columns.size());
  if (rows.begin % kPanel != 0 || columns.begin % block != 0 || (columns.end % block != 0 && columns.end != w.depth))
    fail(
        "{}: rows {} to {}, columns {} to {} of a matrix that is packed in panels of {} rows and blocks of {} columns:"
        " take as many ranks as cut it between these, another plan, or the model as it was before it was converted,"
        " with --quantize",
        name, rows.begin, rows.end, columns.begin, columns.end, kPanel, block);
  return w.view(rows.begin, rows.size(), columns.begin, columns.size());
}

}  // namespace foe
