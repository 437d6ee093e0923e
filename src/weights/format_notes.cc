#include "weights/format_notes.h"

#include <set>

#include <fmt/format.h>

namespace foe {

std::vector<std::string> format_notes(const TensorFolder& folder, const WeightFormats& formats) {
  if (!folder.gguf()) return {};
  std::set<std::string_view> types;
  for (const TensorFile& file : folder.files())
    for (const TensorInfo& info : file.tensors())
      if (info.type->dtype && in_blocks(*info.type->dtype)) types.insert(info.type->name);
  std::set<std::string_view> rounded;
  for (const WeightFormat format : {formats.attention, formats.experts, formats.head})
    if (format != WeightFormat::kF32) rounded.insert(to_string(format));
  if (types.empty() || rounded.empty()) return {};
  return {
      fmt::format("{}: weights of the types {} are decoded, and rounded to {} in memory; --dtype f32 keeps their"
                  " values",
                  folder.model_dir(), fmt::join(types, ", "), fmt::join(rounded, ", "))};
}

}  // namespace foe
