#include "weights/weight_formats.h"

#include <algorithm>

#include "base/error.h"

namespace foe {

FormatChoice parse_format_choice(std::string_view what, std::string_view text) {
  FormatChoice choice;
  for (bool first = true; first || !text.empty(); first = false) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const std::size_t equals = item.find('=');
    if (equals == item.npos && first) {
      choice = FormatChoice::all(parse_weight_format(what, item));
      continue;
    }
    const std::string_view part = item.substr(0, std::min(equals, item.size()));
    std::optional<WeightFormat>* format = part == "attention" ? &choice.attention
                                          : part == "experts" ? &choice.experts
                                          : part == "head"    ? &choice.head
                                                              : nullptr;
    if (!format || equals == item.npos)
      fail("{}: expected a format, or attention=, experts= or head= with one, got '{}'", what, item);
    *format = parse_weight_format(what, item.substr(equals + 1));
  }
  return choice;
}

}  // namespace foe
