#include "weights/format_notes.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "weights/kept_formats.h"

namespace foe {

std::vector<std::string> format_notes(const StoredTensors& stored, const ModelConfig& config,
                                      const WeightFormats& formats) {
  const TensorFolder& folder = stored.folder();
  if (!folder.gguf()) return {};
  std::set<std::string_view> kept, decoded, rounded;  // types in the file, and what the second ones are rounded to
  int matrices = 0;                                   // that are decoded
  for (const ModelTensor& row : stored.table().rows()) {
    if (row.format == TensorFormat::kFile || row.format == TensorFormat::kF32) continue;
    const int count = row.role == TensorRole::kHead ? 1 : row.count;
    for (int index = 0; index < count; ++index) {
      const DType type = stored_matrix(stored, row, index).tensor.dtype;
      if (!in_blocks(type)) continue;
      const WeightFormat format = format_in_memory(stored, config, formats, row, index);
      (in_parts(format) ? kept : decoded).insert(to_string(type));
      if (in_parts(format) || format == WeightFormat::kF32) continue;
      rounded.insert(to_string(format));
      ++matrices;
    }
  }
  std::vector<std::string> notes;
  if (!kept.empty())
    notes.push_back(
        fmt::format("{}: weights of the types {} keep their numbers; activations beside them are rounded to 8 bits",
                    folder.model_dir(), fmt::join(kept, ", ")));
  if (!rounded.empty())
    notes.push_back(
        fmt::format("{}: {} matrices of the types {} are decoded, and rounded to {} in memory (foe inspect --tensors"
                    " lists them); --dtype f32 without --quantize keeps their values",
                    folder.model_dir(), matrices, fmt::join(decoded, ", "), fmt::join(rounded, ", ")));
  return notes;
}

}  // namespace foe
