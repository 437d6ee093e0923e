#include "weights/packed_tensors.h"

#include <set>

#include <fmt/format.h>

#include "base/error.h"
#include "weights/gguf/gguf_config.h"

namespace foe {
namespace {

// Returns the LAYOUT of a format.
const char* layout_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
      return "rotated_int8x128";
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

// Whether a tensor is computed, or read together with the configuration, or no part of the model.
bool is_read_elsewhere(const TensorFolder& folder, std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || (folder.gguf() && is_beside_gguf_model(folder, name));
}

// Whether there is anything in a tensor: transformers writes empty ones for experts of which a model has none.
bool has_elements(const TensorFolder& folder, std::string_view name) {
  const std::optional<Tensor> tensor = folder.find(name);
  return !tensor || !tensor->bytes.empty();
}

StoredFormat format_of_part(const StoredFormats& formats, TensorFormat part) {
  switch (part) {
    case TensorFormat::kAttention:
      return formats.attention;
    case TensorFormat::kExperts:
      return formats.experts;
    case TensorFormat::kHead:
      return formats.head;
    default:
      return {};
  }
}

}  // namespace

void check_plain(const StoredTensors& stored, const ModelConfig& config) {
  const std::string& folder = stored.folder().model_dir();
  const StoredFormats formats = stored_formats(stored, config);
  for (const StoredFormat& part : {formats.attention, formats.experts, formats.head})
    if (part.packed)
      fail("{}: expected weights in f32, bf16 or f16, got a model that is packed in {}", folder,
           to_string(part.format));
  check_tensors(stored, formats);
  for_each_tensor(stored.table(), [&](const ModelTensor& row, int index) {
    if (const Tensor tensor = stored.find(row, index).tensor; in_blocks(tensor.dtype))
      fail("{}: {}: expected weights in f32, bf16 or f16, got {}", folder, tensor.name, to_string(tensor.dtype));
  });
  if (const std::string& head = stored.table().at(TensorRole::kHead).name;
      config.tie_word_embeddings && stored.folder().contains(head))
    fail("{}: expected no {} in a model whose head is its embedding, got one", folder, head);
}

StoredMatrix matrix(const Tensor& tensor) {
  const int rows = static_cast<int>(tensor.shape[0]), depth = static_cast<int>(tensor.shape[1]);
  return {tensor.dtype, tensor.bytes.data(), bytes_of(tensor.dtype, depth), rows, depth};
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

std::string packed_stem(const ModelTensor& row, int index) {
  std::string name = name_of(row, index);
  name.resize(name.rfind(".weight"));
  if (row.split == TensorSplit::kExpertRows) name.replace(name.rfind('.') + 1, std::string::npos, "gate_up_proj");
  return name;
}

StoredFormats stored_formats(const StoredTensors& stored, const ModelConfig& config) {
  const TensorFolder& folder = stored.folder();
  const ModelTensor& q = stored.table().at(TensorRole::kQProj, 0);
  const ExpertMatrices expert = expert_matrices(stored.table(), config, 0, 0);
  return {
      .attention = stored_format(folder, packed_stem(q), [&] { return stored.find(q).tensor; }),
      .experts = stored_format(folder, packed_stem(expert.down, expert.index),
                               [&] { return stored.find(expert.down, expert.index).tensor; }),
      .head = stored_format(folder, packed_stem(stored.table().at(TensorRole::kHead)), [&] { return stored.head(); })};
}

void check_tensors(const StoredTensors& stored, const StoredFormats& formats) {
  const TensorFolder& folder = stored.folder();
  std::set<std::string, std::less<>> known;
  for_each_tensor(stored.table(), [&](const ModelTensor& row, int index) {
    const StoredFormat format = format_of_part(formats, row.format);
    if (format.packed) {
      known.insert(packed_name(packed_stem(row, index), format.format));
    } else {
      for (std::string& name : stored.check(row, index)) known.insert(std::move(name));
    }
  });
  // A tied head may be there all the same. In a packed model it is always.
  const ModelTensor& head = stored.table().at(TensorRole::kHead);
  if (formats.head.packed)
    known.insert(packed_name(packed_stem(head), formats.head.format));
  else if (formats.attention.packed)
    fail("{}: expected the head packed, as attention is, got none: convert the original model again",
         folder.model_dir());
  else
    known.insert(stored.head().name);
  for (const std::string& name : known)
    if (!folder.contains(name)) fail("{}: expected a tensor {}, got no such tensor", folder.model_dir(), name);
  for (const std::string_view name : folder.names())
    if (!known.contains(name) && !stored.is_unused(name) && !is_read_elsewhere(folder, name) &&
        has_elements(folder, name))
      fail("{}: expected no tensors but those that config.json describes, got {}, which nothing would read",
           folder.model_dir(), name);
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
