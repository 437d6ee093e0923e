#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja_methods.h"
#include "text/jinja_operators.h"
#include "text/jinja_strings.h"

namespace foe::jinja {
namespace {

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

// -- texts ----------------------------------------------------------------------------------------------------------

template <std::string (*map)(std::string_view, Budget&)>
Value map_text(const FilterCall& call) {
  call.bind({});
  return make_text(map(call.text(), call.budget), call.budget);
}

Value trim(const FilterCall& call) {
  const Bound args = call.bind({"chars"});
  return make_text(std::string(strip(call.text(), kBothSides, args.text_or_null(0), call.budget)), call.budget);
}

Value string(const FilterCall& call) {
  call.bind({});
  return make_text(call.text(), call.budget);
}

Value escape(const FilterCall& call) {
  call.bind({});
  std::string text = call.text();
  constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
      {"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
  for (const auto& [character, entity] : kEntities) text = replace_all(text, character, entity, -1, call.budget);
  return make_text(std::move(text), call.budget);
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
  const std::string text = call.text() + "\n";
  const std::vector<std::string_view> lines = split_lines(text, /*keep_ends=*/false, call.budget);
  TextBuilder out(call.budget);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.add("\n");
    if (i == 0 ? args.truthy_or(1, false) : blank || !lines[i].empty()) out.add(margin);
    out.add(lines[i]);
  }
  return out.value();
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
  if (const std::string* text = as_text(value)) return parse_number<double>(trimmed(*text, budget));
  return as_number(value);
}

Value to_int(const FilterCall& call) {
  const Bound args = call.bind({"default", "base"});
  if (args.integer_or(1, 10) != 10) fail("int: expected the base 10");
  if (const auto integer = as_integer(call.input)) return *integer;
  if (const std::string* text = as_text(call.input)) {
    if (const auto integer = parse_number<std::int64_t>(trimmed(*text, call.budget))) return *integer;
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
    return std::strtod(fmt::format("{:.{}f}", *number, precision).c_str(), nullptr);  // halves as Python rounds them
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return (method == "ceil" ? std::ceil(*number * scale) : std::floor(*number * scale)) / scale;
}

// -- lists ----------------------------------------------------------------------------------------------------------

// x.name, x.a.b or x.0 as the filters with attribute= read it.
Value dotted(Value object, const Value& path, Budget& budget) {
  const std::string* text = as_text(path);
  if (text == nullptr) return get_item(object, path, budget);
  const std::string dot = ".";
  for (const std::string_view part : split(*text, &dot, -1, /*from_right=*/false, budget)) {
    const auto index = parse_number<std::int64_t>(part);
    object = get_item(object, index && part[0] != '-' ? Value(*index) : make_text(std::string(part), budget), budget);
  }
  return object;
}

Value length_of(const FilterCall& call) {
  call.bind({});
  return static_cast<std::int64_t>(length(call.input, call.budget));
}

Value join(const FilterCall& call) {
  const Bound args = call.bind({"d", "attribute"});
  const std::string separator = args.has(0) ? to_text(args[0], call.budget) : "";
  TextBuilder out(call.budget);
  bool first = true;
  for (const Value& item : iterate(call.input, call.budget)) {
    if (!std::exchange(first, false)) out.add(separator);
    print(args.has(1) && !is_none(args[1]) ? dotted(item, args[1], call.budget) : item, out);
  }
  return out.value();
}

Value first(const FilterCall& call) {
  call.bind({});
  if (const Sequence* sequence = as_sequence(call.input); sequence && sequence->kind == Sequence::kIterator) {
    if (sequence->used < sequence->items.size()) return sequence->items[sequence->used++];
    return undefined("there is no first item");
  }
  const std::vector<Value> items = iterate(call.input, call.budget);
  return items.empty() ? undefined("there is no first item") : items.front();
}

Value last(const FilterCall& call) {
  call.bind({});
  length(call.input, call.budget);  // what has none cannot be read from its end
  const std::vector<Value> items = iterate(call.input, call.budget);
  return items.empty() ? undefined("there is no last item") : items.back();
}

Value list(const FilterCall& call) {
  call.bind({});
  return call.list(iterate(call.input, call.budget));
}

Value reverse(const FilterCall& call) {
  call.bind({});
  std::vector<Value> items = iterate(call.input, call.budget);
  std::reverse(items.begin(), items.end());
  if (as_text(call.input) == nullptr) return call.list(std::move(items), Sequence::kIterator);
  TextBuilder out(call.budget);
  for (const Value& item : items) print(item, out);
  return out.value();
}

Value items(const FilterCall& call) {
  call.bind({});
  const Dict* dict = as_dict(call.input);
  if (dict == nullptr && !is_undefined(call.input)) wrong_type("items", "a dict", call.input);
  std::vector<Value> pairs;
  if (dict != nullptr) {
    for (const auto& [key, value] : dict->entries) {
      pairs.push_back(make_sequence({key, value}, call.budget, Sequence::kTuple));
    }
  }
  return call.list(std::move(pairs), Sequence::kIterator);
}

// What sorting and unique compare by: texts without regard to case, unless asked.
Value sort_key(const Value& value, bool case_sensitive, Budget& budget) {
  const std::string* text = as_text(value);
  return text == nullptr || case_sensitive ? value : make_text(to_lower(*text, budget), budget);
}

struct Keyed {
  Value key, value;
};

std::vector<Keyed> keyed(std::vector<Value> values, const Value* attribute, bool case_sensitive, Budget& budget) {
  budget.memory(values.size() * sizeof(Keyed));
  std::vector<Keyed> result;
  for (Value& value : values) {
    const Value part = attribute == nullptr ? value : dotted(value, *attribute, budget);
    result.push_back({sort_key(part, case_sensitive, budget), std::move(value)});
  }
  return result;
}

std::vector<Value> sorted(std::vector<Keyed> entries, bool reversed, Budget& budget) {
  std::stable_sort(entries.begin(), entries.end(), [&](const Keyed& a, const Keyed& b) {
    return reversed ? less(b.key, a.key, budget) : less(a.key, b.key, budget);
  });
  std::vector<Value> values;
  for (Keyed& entry : entries) values.push_back(std::move(entry.value));
  return values;
}

const Value* given(const Bound& args, std::size_t i) {
  return args.has(i) && !is_none(args[i]) ? &args[i] : nullptr;
}

Value sort(const FilterCall& call) {
  const Bound args = call.bind({"reverse", "case_sensitive", "attribute"});
  auto entries = keyed(iterate(call.input, call.budget), given(args, 2), args.truthy_or(1, false), call.budget);
  return call.list(sorted(std::move(entries), args.truthy_or(0, false), call.budget));
}

Value dictsort(const FilterCall& call) {
  const Bound args = call.bind({"case_sensitive", "by", "reverse"});
  const std::string by = args.has(1) ? args.text(1) : "key";
  if (by != "key" && by != "value") fail("dictsort: expected 'key' or 'value' to sort by, got '{}'", by.substr(0, 60));
  const Dict* dict = as_dict(call.input);
  if (dict == nullptr) wrong_type("dictsort", "a dict", call.input);
  std::vector<Keyed> entries;
  for (const auto& [key, value] : dict->entries) {
    entries.push_back({sort_key(by == "key" ? Value(key) : value, args.truthy_or(0, false), call.budget),
                       make_sequence({key, value}, call.budget, Sequence::kTuple)});
  }
  return call.list(sorted(std::move(entries), args.truthy_or(2, false), call.budget));
}

Value unique(const FilterCall& call) {
  const Bound args = call.bind({"case_sensitive", "attribute"});
  auto entries = keyed(iterate(call.input, call.budget), given(args, 1), args.truthy_or(0, false), call.budget);
  std::vector<Value> seen, result;
  for (Keyed& entry : entries) {
    const auto same = [&](const Value& other) { return equals(entry.key, other, call.budget); };
    if (std::any_of(seen.begin(), seen.end(), same)) continue;
    seen.push_back(entry.key);
    result.push_back(std::move(entry.value));
  }
  return call.list(std::move(result), Sequence::kIterator);
}

// min and max
template <bool kLargest>
Value extreme(const FilterCall& call) {
  const Bound args = call.bind({"case_sensitive", "attribute"});
  auto entries = keyed(iterate(call.input, call.budget), given(args, 1), args.truthy_or(0, false), call.budget);
  if (entries.empty()) return undefined("there is no item");
  const auto before = [&](const Keyed& a, const Keyed& b) {
    return kLargest ? less(b.key, a.key, call.budget) : less(a.key, b.key, call.budget);
  };
  return std::min_element(entries.begin(), entries.end(), before)->value;
}

Value sum(const FilterCall& call) {
  const Bound args = call.bind({"attribute", "start"});
  Value total = args.has(1) ? args[1] : Value(std::int64_t{0});
  for (const Value& item : iterate(call.input, call.budget)) {
    const Value* attribute = given(args, 0);
    total =
        binary(Binary::kAdd, total, attribute == nullptr ? item : dotted(item, *attribute, call.budget), call.budget);
  }
  return total;
}

// The arguments after the first `count` positional ones, which name what is called with them.
Arguments rest_of(const Arguments& arguments, std::size_t count) {
  const auto skipped = static_cast<std::ptrdiff_t>(std::min(count, arguments.positional.size()));
  return {{arguments.positional.begin() + skipped, arguments.positional.end()}, arguments.named};
}

const std::string& name_at(const FilterCall& call, std::size_t i, std::string_view what) {
  const std::string* name = i < call.arguments.positional.size() ? as_text(call.arguments.positional[i]) : nullptr;
  if (name == nullptr) fail("{}: expected the name of {}", call.name, what);
  return *name;
}

// map(attribute="name", default=...) or map("filter", its arguments)
Value map(const FilterCall& call) {
  std::vector<Value> result;
  const std::vector<Value> inputs = iterate(call.input, call.budget);
  if (call.arguments.positional.empty()) {
    const Bound args = call.bind({"attribute", "default"}, 1);
    for (const Value& input : inputs) {
      Value value = dotted(input, args[0], call.budget);
      result.push_back(is_undefined(value) && given(args, 1) != nullptr ? args[1] : std::move(value));
    }
  } else {
    const std::string& filter = name_at(call, 0, "a filter");
    const Arguments rest = rest_of(call.arguments, 1);
    for (const Value& input : inputs) {
      call.budget.work(Budget::kNodeWork);
      result.push_back(apply_filter(filter, input, rest, call.budget));
    }
  }
  return call.list(std::move(result), Sequence::kIterator);
}

// select, reject, selectattr and rejectattr: by a test, or by what is truthy.
template <bool kKeep, bool kByAttribute>
Value select(const FilterCall& call) {
  constexpr std::size_t kTest = kByAttribute ? 1 : 0;
  const bool has_test = call.arguments.positional.size() > kTest;
  const Arguments rest = rest_of(call.arguments, kTest + 1);
  if (kByAttribute && call.arguments.positional.empty()) fail("{}: expected the name of an attribute", call.name);
  std::vector<Value> result;
  for (const Value& input : iterate(call.input, call.budget)) {
    call.budget.work(Budget::kNodeWork);
    const Value part = kByAttribute ? dotted(input, call.arguments.positional[0], call.budget) : input;
    const bool holds = has_test ? apply_test(name_at(call, kTest, "a test"), part, rest, call.budget) : truthy(part);
    if (holds == kKeep) result.push_back(input);
  }
  return call.list(std::move(result), Sequence::kIterator);
}

Value default_value(const FilterCall& call) {
  const Bound args = call.bind({"default_value", "boolean"});
  const bool missing = is_undefined(call.input) || (args.truthy_or(1, false) && !truthy(call.input));
  if (!missing) return call.input;
  return args.has(0) ? args[0] : make_text("", call.budget);
}

struct Filter {
  std::string_view name;
  Value (*apply)(const FilterCall&);
};

constexpr Filter kFilters[] = {
    {"abs", absolute},
    {"capitalize", map_text<capitalize>},
    {"count", length_of},
    {"d", default_value},
    {"default", default_value},
    {"dictsort", dictsort},
    {"e", escape},
    {"escape", escape},
    {"first", first},
    {"float", to_double},
    {"indent", indent},
    {"int", to_int},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length_of},
    {"list", list},
    {"lower", map_text<to_lower>},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select<false, false>},
    {"rejectattr", select<false, true>},
    {"replace", replace},
    {"reverse", reverse},
    {"round", round_number},
    {"safe", string},
    {"select", select<true, false>},
    {"selectattr", select<true, true>},
    {"sort", sort},
    {"string", string},
    {"sum", sum},
    {"title", map_text<title_words>},
    {"tojson", tojson},
    {"trim", trim},
    {"unique", unique},
    {"upper", map_text<to_upper>},
};

}  // namespace

Value apply_filter(std::string_view name, const Value& input, const Arguments& arguments, Budget& budget) {
  const auto* found =
      std::find_if(std::begin(kFilters), std::end(kFilters), [&](const Filter& filter) { return filter.name == name; });
  if (found == std::end(kFilters)) fail("the filter '{}' is not supported in a chat template", name);
  return found->apply({name, input, arguments, budget});
}

}  // namespace foe::jinja
