// The formats of the parts of a model. Router and norms are always f32 in memory.
#pragma once

#include <optional>
#include <string_view>

#include "kernels/formats/weight_format.h"

namespace foe {

struct WeightFormats {
  WeightFormat attention = WeightFormat::kBF16, experts = WeightFormat::kBF16, head = WeightFormat::kBF16;

  bool operator==(const WeightFormats&) const = default;
};

// The formats that a user asks for. A part without one keeps the format of the file.
struct FormatChoice {
  std::optional<WeightFormat> attention, experts, head;

  static FormatChoice all(WeightFormat format) { return {format, format, format}; }
};

// Reads "int4" for all parts, or a list such as "attention=int8,experts=int4,head=bf16", which may begin with a format
// for the parts that it does not name. Throws Error, beginning with `what`, for anything else.
FormatChoice parse_format_choice(std::string_view what, std::string_view text);

}  // namespace foe
