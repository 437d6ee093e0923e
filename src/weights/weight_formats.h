// The formats of the parts of a model. Router and norms are always f32 in memory.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/formats/weight_format.h"

namespace foe {

// A part whose matrices keep the formats that they have in a file, if these have panels (in_parts).
struct KeptFormats {
  std::vector<WeightFormat> formats = {};  // of all matrices of the part, ascending; empty: none is kept
  double bits = 0;                         // of a weight, in the mean

  bool operator==(const KeptFormats&) const = default;
};

// Each part has one format for its matrices or, if some are kept, for those that are not.
struct WeightFormats {
  WeightFormat attention = WeightFormat::kBF16, experts = WeightFormat::kBF16, head = WeightFormat::kBF16;
  KeptFormats kept_attention = {}, kept_experts = {}, kept_head = {};

  bool operator==(const WeightFormats&) const = default;
};

// Return how many bits a weight of a part takes in the mean, and the names of its formats.
double bits(WeightFormat format, const KeptFormats& kept);
std::string names(WeightFormat format, const KeptFormats& kept);

// The formats that a user asks for. A part without one keeps the format of the file.
struct FormatChoice {
  std::optional<WeightFormat> attention, experts, head;

  static FormatChoice all(WeightFormat format) { return {format, format, format}; }
};

// Reads "int4" for all parts, or a list such as "attention=int8,experts=int4,head=bf16", which may begin with a format
// for the parts that it does not name. Throws Error, beginning with `what`, for anything else.
FormatChoice parse_format_choice(std::string_view what, std::string_view text);

}  // namespace foe
