#include "kernels/formats/weight_format.h"

#include "base/error.h"

namespace foe {

const char* to_string(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kBF16xBF16:
      return "bf16xbf16";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "?";
}

WeightFormat parse_weight_format(std::string_view what, std::string_view name) {
  for (const WeightFormat format : kWeightFormats)
    if (name == to_string(format)) return format;
  fail("{}: expected f32, bf16, bf16xbf16, int8 or int4, got '{}'", what, name);
}

}  // namespace foe
