#include "jinja/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "jinja/operators.h"
#include "jinja/strings.h"

namespace foe::jinja {
namespace {

// -- texts ----------------------------------------------------------------------------------------------------------

// Markup stays markup.
Value same_kind(const FilterCall& call, std::string text) {
  return is_markup(call.input) ? make_markup(std::move(text), call.budget) : make_text(std::move(text), call.budget);
}

template <std::string (*map)(std::string_view, Budget&)>
Value map_text(const FilterCall& call) {
  call.bind({});
  return same_kind(call, map(call.text(), call.budget));
}

Value title_filter(const FilterCall& call) {
  call.bind({});
  return make_text(title_words(call.text(), call.budget), call.budget);
}

Value trim(const FilterCall& call) {
  const Bound args = call.bind({"chars"});
  return same_kind(call, std::string(strip(call.text(), kBothSides, args.text_or_null(0), call.budget)));
}

Value string(const FilterCall& call) {
  call.bind({});
  return same_kind(call, call.text());
}

Value safe(const FilterCall& call) {
  call.bind({});
  return make_markup(call.text(), call.budget);
}

Value escape(const FilterCall& call) {
  call.bind({});
  return make_markup(escaped_unless_markup(call.input, call.budget), call.budget);
}

Value force_escape(const FilterCall& call) {
  call.bind({});
  return make_markup(escaped(call.text(), call.budget), call.budget);
}

// "%s: %d"|format(a, b), or with names.
Value format_filter(const FilterCall& call) {
  const auto& [positional, named] = call.arguments;
  if (!positional.empty() && !named.empty()) fail("format: expected values with names or without, got both");
  const Value values =
      named.empty() ? make_sequence(positional, call.budget, Sequence::kTuple) : make_dict(call.arguments, call.budget);
  return percent(call.input, call.text(), values, call.budget);
}

Value replace(const FilterCall& call) {
  const Bound args = call.bind({"old", "new", "count"}, 2);
  const std::string old_part = to_text(args[0], call.budget), new_part = to_text(args[1], call.budget);
  return make_text(replace_all(call.text(), old_part, new_part, args.integer_or(2, -1), call.budget), call.budget);
}

std::string indentation(const Value& width, Budget& budget) {
  if (const std::string* text = as_text(width)) return *text;
  const auto spaces = as_integer(width);
  if (!spaces) wrong_type("an indentation", "a number of spaces or a text", width);
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(*spaces, 0));
  budget.memory(size);
  return std::string(size, ' ');
}

Value indent(const FilterCall& call) {
  const Bound args = call.bind({"width", "first", "blank"});
  const std::string margin = indentation(args.has(0) ? args[0] : Value(std::int64_t{4}), call.budget);
  const bool blank = args.truthy_or(2, false);
  if (as_text(call.input) == nullptr) wrong_type("indent", "a text", call.input);
  const std::string text = call.text() + "\n";
  const std::vector<std::string_view> lines = split_lines(text, /*keep_ends=*/false, call.budget);
  TextBuilder out(call.budget);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.add("\n");
    if (i == 0 ? args.truthy_or(1, false) : blank || !lines[i].empty()) out.add(margin);
    out.add(lines[i]);
  }
  return same_kind(call, out.take());
}

Value tojson(const FilterCall& call) {
  const Bound args = call.bind({"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = args.truthy_or(0, false);
  style.sort_keys = args.truthy_or(3, false);
  if (args.has(1) && !is_none(args[1])) {
    style.indent = indentation(args[1], call.budget);
    style.item_separator = ",";
  }
  if (args.has(2) && !is_none(args[2])) {
    const std::vector<Value> separators = iterate(args[2], call.budget);
    const std::string* texts[2] = {};
    for (std::size_t i = 0; i < separators.size() && i < 2; ++i) texts[i] = as_text(separators[i]);
    if (separators.size() != 2 || !texts[0] || !texts[1]) wrong_type("separators", "a pair of texts", args[2]);
    style.item_separator = *texts[0];
    style.key_separator = *texts[1];
  }
  return std::make_shared<const std::string>(to_json(call.input, style, call.budget));
}

// -- numbers --------------------------------------------------------------------------------------------------------

std::string_view trimmed(const std::string& text, Budget& budget) {
  return strip(text, kBothSides, nullptr, budget);
}

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<double> to_float(const Value& value, Budget& budget) {
  if (is_undefined(value)) wrong_type("a number", "a value", value);
  if (const std::string* text = as_text(value)) return parse_number<double>(trimmed(*text, budget));
  return as_number(value);
}

Value to_int(const FilterCall& call) {
  const Bound args = call.bind({"default", "base"});
  const std::int64_t base = args.integer_or(1, 10);
  if (base != 10) fail("int: expected the base 10, which alone is supported, got {}", base);
  if (const auto integer = as_integer(call.input)) return *integer;
  if (const std::string* text = as_text(call.input)) {
    if (const auto integer = parse_integer(trimmed(*text, call.budget))) return *integer;
  }
  const auto number = to_float(call.input, call.budget);
  if (!number || !std::isfinite(*number)) return args.has(0) ? args[0] : Value(std::int64_t{0});
  if (std::abs(*number) >= 0x1p63) fail("int: expected a number within 64 bits, got {}", *number);
  return static_cast<std::int64_t>(*number);
}

Value to_double(const FilterCall& call) {
  const Bound args = call.bind({"default"});
  const auto number = to_float(call.input, call.budget);
  return number ? Value(*number) : args.has(0) ? args[0] : Value(0.0);
}

Value absolute(const FilterCall& call) {
  call.bind({});
  const auto number = as_number(call.input);
  if (!number) wrong_type("abs", "a number", call.input);
  if (as<double>(call.input) != nullptr) return std::abs(*number);
  const std::int64_t integer = *as_integer(call.input);
  return integer < 0 ? negate(integer) : Value(integer);
}

Value round_number(const FilterCall& call) {
  const Bound args = call.bind({"precision", "method"});
  const std::int64_t precision = args.integer_or(0, 0);
  const std::string method = args.has(1) ? args.text(1) : "common";
  const auto number = as_number(call.input);
  if (!number) wrong_type("round", "a number", call.input);
  if (precision < 0 || precision > 300) fail("round: expected a precision of 0 to 300, got {}", precision);
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("round: expected the method common, ceil or floor, got '{}'", method.substr(0, 60));
  }
  if (method == "common") {
    if (as<double>(call.input) == nullptr) return *as_integer(call.input);
    if (!std::isfinite(*number)) return *number;
    return std::strtod(fmt::format("{:.{}f}", *number, precision).c_str(), nullptr);  // rounds halves like Python
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return (method == "ceil" ? std::ceil(*number * scale) : std::floor(*number * scale)) / scale;
}

// -- any value ------------------------------------------------------------------------------------------------------

Value default_value(const FilterCall& call) {
  const Bound args = call.bind({"default_value", "boolean"});
  const bool missing = is_undefined(call.input) || (args.truthy_or(1, false) && !truthy(call.input));
  if (!missing) return call.input;
  return args.has(0) ? args[0] : make_text("", call.budget);
}

constexpr Filter kFilters[] = {
    {"abs", absolute},
    {"capitalize", map_text<capitalize>},
    {"d", default_value},
    {"default", default_value},
    {"e", escape},
    {"escape", escape},
    {"float", to_double},
    {"forceescape", force_escape},
    {"format", format_filter},
    {"indent", indent},
    {"int", to_int},
    {"lower", map_text<to_lower>},
    {"replace", replace},
    {"round", round_number},
    {"safe", safe},
    {"string", string},
    {"title", title_filter},
    {"tojson", tojson},
    {"trim", trim},
    {"upper", map_text<to_upper>},
};

}  // namespace

std::optional<std::int64_t> parse_integer(std::string_view text) {
  return parse_number<std::int64_t>(text);
}

Value apply_filter(std::string_view name, const Value& input, const Arguments& arguments, Budget& budget) {
  for (const std::span<const Filter> filters : {std::span<const Filter>(kFilters), list_filters()}) {
    for (const Filter& filter : filters) {
      if (filter.name == name) return filter.apply({name, input, arguments, budget});
    }
  }
  fail("the filter '{}' is not supported in a chat template", name);
}

}  // namespace foe::jinja
