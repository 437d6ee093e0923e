// The tables of filters. Private to this folder.
#pragma once

#include <span>

#include "jinja/methods.h"

namespace foe::jinja {

struct FilterCall {
  std::string_view name;
  const Value& input;
  const Arguments& arguments;
  Budget& budget;

  Bound bind(std::initializer_list<std::string_view> parameters, std::size_t required = 0) const {
    return Bound(name, arguments, parameters, required);
  }
  std::string text() const { return to_text(input, budget); }
  Value list(std::vector<Value> items, Sequence::Kind kind = Sequence::kList) const {
    return make_sequence(std::move(items), budget, kind);
  }
};

struct Filter {
  std::string_view name;
  Value (*apply)(const FilterCall&);
};

std::span<const Filter> list_filters();  // filters.cc has the filters of one text, number or other value

// Returns the integer that all of `text` is, with or without a sign; nothing if it is not one.
std::optional<std::int64_t> parse_integer(std::string_view text);

}  // namespace foe::jinja
