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
    case WeightFormat::kQ8_0:
      return "q8_0";
    case WeightFormat::kQ4_1:
      return "q4_1";
    case WeightFormat::kQ4_K:
      return "q4_k";
    case WeightFormat::kQ6_K:
      return "q6_k";
  }
  return "?";
}

WeightFormat parse_weight_format(std::string_view what, std::string_view name) {
  for (const WeightFormat format : kWeightFormats)
    if (name == to_string(format)) return format;
  fail("{}: expected f32, bf16, bf16xbf16, int8, int4, q8_0, q4_1, q4_k or q6_k, got '{}'", what, name);
}

}  // namespace foe
