// Which format the parts of a model have in memory. Router and norms are f32, always.
#pragma once

#include <optional>
#include <string_view>

#include "kernels/formats/weight_format.h"

namespace foe {

struct WeightFormats {
  WeightFormat attention = WeightFormat::kBF16, experts = WeightFormat::kBF16, head = WeightFormat::kBF16;

  bool operator==(const WeightFormats&) const = default;
};

// What is asked for; none: as in the file.
struct FormatChoice {
  std::optional<WeightFormat> attention, experts, head;

  static FormatChoice all(WeightFormat format) { return {format, format, format}; }
};

// "int4" for all parts, or a list as in "attention=int8,experts=int4,head=bf16", which may begin with a format for the
// parts that it does not name. Throws Error beginning with `what`.
FormatChoice parse_format_choice(std::string_view what, std::string_view text);

}  // namespace foe
