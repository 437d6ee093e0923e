#include "weights/weight_formats.h"

#include <algorithm>

#include "base/error.h"

namespace foe {
namespace {

WeightFormat parse_chosen(std::string_view what, std::string_view name) {
  bool kept = false;
  for (const WeightFormat format : kWeightFormats)
    if (name == to_string(format)) {
      if (!in_parts(format)) return format;
      kept = true;
    }
  fail("{}: expected f32, bf16, bf16xbf16, int8 or int4, got '{}'{}", what, name,
       kept ? ", to which nothing is rounded: files that have it keep it unless another format is asked for" : "");
}

}  // namespace

double bits(WeightFormat format, const KeptFormats& kept) {
  return kept.formats.empty() ? bits(format) : kept.bits;
}

std::string names(WeightFormat format, const KeptFormats& kept) {
  if (kept.formats.empty()) return to_string(format);
  std::string all;
  for (const WeightFormat one : kept.formats) all += (all.empty() ? "" : "+") + std::string(to_string(one));
  return all;
}

FormatChoice parse_format_choice(std::string_view what, std::string_view text) {
  FormatChoice choice;
  for (bool first = true; first || !text.empty(); first = false) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const std::size_t equals = item.find('=');
    if (equals == item.npos && first) {
      choice = FormatChoice::all(parse_chosen(what, item));
      continue;
    }
    const std::string_view part = item.substr(0, std::min(equals, item.size()));
    std::optional<WeightFormat>* format = part == "attention" ? &choice.attention
                                          : part == "experts" ? &choice.experts
                                          : part == "head"    ? &choice.head
                                                              : nullptr;
    if (!format || equals == item.npos)
      fail("{}: expected a format, or attention=, experts= or head= with one, got '{}'", what, item);
    *format = parse_chosen(what, item.substr(equals + 1));
  }
  return choice;
}

}  // namespace foe
