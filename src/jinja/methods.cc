#include "jinja/methods.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "jinja/formatting.h"
#include "jinja/operators.h"
#include "jinja/strings.h"
#include "text/utf8.h"

namespace foe::jinja {
namespace {

constexpr std::string_view kTextMethods[] = {
    "capitalize",   "casefold",   "center",    "count",       "encode",    "endswith",     "expandtabs",   "find",
    "format",       "format_map", "index",     "isalnum",     "isalpha",   "isascii",      "isdecimal",    "isdigit",
    "isidentifier", "islower",    "isnumeric", "isprintable", "isspace",   "istitle",      "isupper",      "join",
    "ljust",        "lower",      "lstrip",    "maketrans",   "partition", "removeprefix", "removesuffix", "replace",
    "rfind",        "rindex",     "rjust",     "rpartition",  "rsplit",    "rstrip",       "split",        "splitlines",
    "startswith",   "strip",      "swapcase",  "title",       "translate", "upper",        "zfill"};
constexpr std::string_view kListMethods[] = {"append", "clear", "copy",   "count",   "extend", "index",
                                             "insert", "pop",   "remove", "reverse", "sort"};
constexpr std::string_view kDictMethods[] = {"clear", "copy",    "fromkeys",   "get",    "items", "keys",
                                             "pop",   "popitem", "setdefault", "update", "values"};

template <typename List>
bool holds(const List& list, std::string_view name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

struct TextCall {
  const std::string& text;
  std::string_view name;
  const Arguments& arguments;
  Budget& budget;
};

Value list_of(const std::vector<std::string_view>& parts, Budget& budget) {
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(make_text(std::string(part), budget));
  return make_sequence(std::move(items), budget);
}

Value text_strip(const TextCall& call, Sides sides) {
  const Bound args(call.name, call.arguments, {"chars"});
  return make_text(std::string(strip(call.text, sides, args.text_or_null(0), call.budget)), call.budget);
}

Value text_split(const TextCall& call, bool from_right) {
  const Bound args(call.name, call.arguments, {"sep", "maxsplit"});
  const auto limit = args.integer_or(1, -1);
  return list_of(split(call.text, args.text_or_null(0), limit, from_right, call.budget), call.budget);
}

// startswith and endswith, with a text or a tuple of texts.
Value text_affix(const TextCall& call, bool at_start) {
  const Bound args(call.name, call.arguments, {"affix"}, 1);
  const std::string_view text = call.text;
  const auto matches = [&](const std::string& affix) {
    call.budget.work(affix.size());
    return at_start ? text.starts_with(affix) : text.ends_with(affix);
  };
  const Sequence* tuple = as_sequence(args[0]);
  if (tuple == nullptr || tuple->kind != Sequence::kTuple) return matches(args.text(0));
  for (const Value& affix : tuple->items) {
    const std::string* one = as_text(affix);
    if (one == nullptr) wrong_type(call.name, "a tuple of texts", affix);
    if (matches(*one)) return true;
  }
  return false;
}

Value text_find(const TextCall& call, bool from_right, bool required) {
  const Bound args(call.name, call.arguments, {"sub"}, 1);
  const std::string& part = args.text(0);
  call.budget.work(from_right ? call.text.size() * (1 + part.size() / 8) : 0);
  const std::size_t found = from_right ? call.text.rfind(part) : find(call.text, part, 0, call.budget);
  if (found != std::string::npos) {
    return static_cast<std::int64_t>(count_characters(std::string_view(call.text).substr(0, found), call.budget));
  }
  if (required) fail("{}: expected a text that contains '{}', got one without", call.name, part.substr(0, 60));
  return std::int64_t{-1};
}

Value text_count(const TextCall& call) {
  const std::string& part = Bound(call.name, call.arguments, {"sub"}, 1).text(0);
  if (part.empty()) return static_cast<std::int64_t>(count_characters(call.text, call.budget)) + 1;
  std::int64_t count = 0;
  for (std::size_t i = 0; (i = find(call.text, part, i, call.budget)) != std::string::npos; i += part.size()) ++count;
  return count;
}

Value text_remove_affix(const TextCall& call, bool at_start) {
  const std::string& affix = Bound(call.name, call.arguments, {"affix"}, 1).text(0);
  std::string_view text = call.text;
  call.budget.work(affix.size());
  if (at_start && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (!at_start && text.ends_with(affix)) text.remove_suffix(affix.size());
  return make_text(std::string(text), call.budget);
}

Value text_join(const TextCall& call) {
  const Bound args(call.name, call.arguments, {"iterable"}, 1);
  TextBuilder out(call.budget);
  bool first = true;
  for (const Value& item : iterate(args[0], call.budget)) {
    const std::string* part = as_text(item);
    if (part == nullptr) wrong_type("join", "texts", item);
    if (!std::exchange(first, false)) out.add(call.text);
    out.add(*part);
  }
  return out.value();
}

// str.isdigit and similar methods: false for an empty text, and supported for ASCII only, where Python's definitions
// agree.
Value text_is(const TextCall& call, int (*is)(int)) {
  Bound(call.name, call.arguments, {});
  call.budget.work(call.text.size());
  for (const char c : call.text) {
    if (static_cast<unsigned char>(c) >= 0x80)
      fail("{}: expected a text of ASCII characters, which alone are supported, got others", call.name);
    if (is(static_cast<unsigned char>(c)) == 0) return false;
  }
  return !call.text.empty();
}

Value text_is_space(const TextCall& call) {
  Bound(call.name, call.arguments, {});
  return !call.text.empty() && strip(call.text, kLeft, nullptr, call.budget).empty();
}

Value text_lines(const TextCall& call) {
  const Bound args(call.name, call.arguments, {"keepends"});
  return list_of(split_lines(call.text, args.truthy_or(0, false), call.budget), call.budget);
}

Value text_replace(const TextCall& call) {
  const Bound args(call.name, call.arguments, {"old", "new", "count"}, 2);
  const std::int64_t count = args.integer_or(2, -1);
  return std::make_shared<const std::string>(replace_all(call.text, args.text(0), args.text(1), count, call.budget));
}

Value text_map(const TextCall& call, std::string (*map)(std::string_view, Budget&)) {
  Bound(call.name, call.arguments, {});
  return make_text(map(call.text, call.budget), call.budget);
}

Value call_text_method(const TextCall& call) {
  const std::string_view name = call.name;
  if (name == "strip") return text_strip(call, kBothSides);
  if (name == "lstrip") return text_strip(call, kLeft);
  if (name == "rstrip") return text_strip(call, kRight);
  if (name == "split" || name == "rsplit") return text_split(call, name == "rsplit");
  if (name == "startswith" || name == "endswith") return text_affix(call, name == "startswith");
  if (name == "replace") return text_replace(call);
  if (name == "upper") return text_map(call, to_upper);
  if (name == "lower") return text_map(call, to_lower);
  if (name == "title") return text_map(call, title);
  if (name == "capitalize") return text_map(call, capitalize);
  if (name == "join") return text_join(call);
  if (name == "find" || name == "index") return text_find(call, /*from_right=*/false, name == "index");
  if (name == "rfind" || name == "rindex") return text_find(call, /*from_right=*/true, name == "rindex");
  if (name == "count") return text_count(call);
  if (name == "removeprefix" || name == "removesuffix") return text_remove_affix(call, name == "removeprefix");
  if (name == "splitlines") return text_lines(call);
  if (name == "format") return make_text(format_fields(call.text, call.arguments, call.budget), call.budget);
  if (name == "isspace") return text_is_space(call);
  if (name == "isdigit" || name == "isnumeric" || name == "isdecimal") return text_is(call, std::isdigit);
  if (name == "isalpha") return text_is(call, std::isalpha);
  if (name == "isalnum") return text_is(call, std::isalnum);
  fail("the method '{}' of a text is not supported in a chat template", name);
}

// The methods of markup escape the texts that they are given, where these become part of the result, which is markup.
Value call_markup_method(const std::string& text, std::string_view name, const Arguments& arguments, Budget& budget) {
  constexpr std::string_view kPlain[] = {"find", "rfind", "index", "rindex", "count", "startswith", "endswith"};
  if (holds(kPlain, name) || name.starts_with("is")) return call_text_method({text, name, arguments, budget});
  Arguments safe = arguments;
  const auto make_safe = [&](Value& value) {
    if (as_text(value)) value = make_markup(escaped_unless_markup(value, budget), budget);
  };
  if (name == "join" && safe.positional.size() == 1) {
    std::vector<Value> items = iterate(safe.positional[0], budget);
    for (Value& item : items) item = make_markup(escaped_unless_markup(item, budget), budget);
    safe.positional[0] = make_sequence(std::move(items), budget);
  } else if (name != "split" && name != "rsplit") {
    for (Value& value : safe.positional) make_safe(value);
    for (auto& [parameter, value] : safe.named) make_safe(value);
  }
  const Value result = call_text_method({text, name, safe, budget});
  if (const std::string* one = as_text(result)) return make_markup(*one, budget);
  const Sequence* parts = as_sequence(result);
  if (!parts) return result;
  std::vector<Value> items;
  for (const Value& part : parts->items) items.push_back(make_markup(*as_text(part), budget));
  return make_sequence(std::move(items), budget, parts->kind);
}

Value call_dict_method(const DictPtr& dict, std::string_view name, const Arguments& arguments, Budget& budget) {
  if (name == "get") {
    const Bound args(name, arguments, {"key", "default"}, 1);
    const Value* found = dict->find(args[0], budget);
    return found != nullptr ? *found : args.has(1) ? args[1] : Value(None{});
  }
  Bound(name, arguments, {});
  if (name == "keys") return make_sequence(iterate(dict, budget), budget, Sequence::kKeys);
  std::vector<Value> items;
  for (const auto& [key, value] : dict->entries) {
    items.push_back(name == "values" ? value : make_sequence({key_value(key), value}, budget, Sequence::kTuple));
  }
  if (name == "values") return make_sequence(std::move(items), budget, Sequence::kValues);
  if (name == "items") return make_sequence(std::move(items), budget, Sequence::kItems);
  fail("the method '{}' of a dict is not allowed in a chat template: values do not change", name);
}

Value call_list_method(const Sequence& list, std::string_view name, const Arguments& arguments, Budget& budget) {
  if (name != "count" && name != "index") {
    fail("the method '{}' of a list is not allowed in a chat template: values do not change", name);
  }
  const Bound args(name, arguments, {"value"}, 1);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (!equals(list.items[i], args[0], budget)) continue;
    if (name == "index") return static_cast<std::int64_t>(i);
    ++count;
  }
  if (name == "index") fail("index: expected a value that is in the list, got another");
  return count;
}

Value call_loop_method(const LoopState& loop, std::string_view name, const Arguments& arguments) {
  if (name != "cycle") fail("the method '{}' of a loop is not supported in a chat template", name);
  const std::vector<Value>& values = arguments.positional;
  if (values.empty() || !arguments.named.empty()) fail("cycle: expected values without names, got none or others");
  return values[loop.index % values.size()];
}

}  // namespace

Bound::Bound(std::string_view callee, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
             std::size_t required)
    : callee_(callee), names_(parameters), values_(parameters.size()) {
  if (arguments.positional.size() > names_.size()) {
    fail("{}: expected at most {} arguments, got {}", callee, names_.size(), arguments.positional.size());
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto at = static_cast<std::size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
    if (at == names_.size()) fail("{}: expected no argument of the name '{}'", callee, name);
    if (has(at)) fail("{}: expected one value for '{}', got two", callee, name);
    values_[at] = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (!has(i)) fail("{}: expected a value for '{}', got none", callee, names_[i]);
  }
}

void Bound::refuse(std::size_t i, std::string_view expected) const {
  wrong_type(fmt::format("{}: {}", callee_, names_[i]), expected, *values_[i]);
}

const std::string& Bound::text(std::size_t i) const {
  const std::string* text = as_text(*values_[i]);
  if (text == nullptr) refuse(i, "a text");
  return *text;
}

const std::string* Bound::text_or_null(std::size_t i) const {
  return given(i) ? &text(i) : nullptr;
}

std::int64_t Bound::integer_or(std::size_t i, std::int64_t fallback) const {
  if (!given(i)) return fallback;
  const auto integer = as_integer(*values_[i]);
  if (!integer) refuse(i, "an integer");
  return *integer;
}

bool Bound::truthy_or(std::size_t i, bool fallback) const {
  return has(i) ? truthy(*values_[i]) : fallback;
}

bool is_method(const Value& value, std::string_view name) {
  if (as_text(value) != nullptr) return holds(kTextMethods, name);
  if (as_dict(value) != nullptr) return holds(kDictMethods, name);
  if (as<std::shared_ptr<const LoopState>>(value)) return name == "cycle" || name == "changed";
  const Sequence* sequence = as_sequence(value);
  if (sequence == nullptr) return false;
  if (sequence->kind == Sequence::kList) return holds(kListMethods, name);
  return sequence->kind <= Sequence::kRange && (name == "count" || name == "index");
}

Value call_method(const Method& method, const Arguments& arguments, Budget& budget) {
  if (const std::string* text = as_text(method.self)) {
    if (is_markup(method.self)) return call_markup_method(*text, method.name, arguments, budget);
    return call_text_method({*text, method.name, arguments, budget});
  }
  if (const DictPtr* dict = as<DictPtr>(method.self)) return call_dict_method(*dict, method.name, arguments, budget);
  if (const auto* loop = as<std::shared_ptr<const LoopState>>(method.self))
    return call_loop_method(**loop, method.name, arguments);
  return call_list_method(*as_sequence(method.self), method.name, arguments, budget);
}

Value loop_attribute(const LoopState& loop, std::string_view name) {
  const std::vector<Value>& items = loop.sequence->items;
  const std::size_t size = items.size(), index = loop.index;
  const auto integer = [](std::size_t i) { return Value(static_cast<std::int64_t>(i)); };
  if (name == "index") return integer(index + 1);
  if (name == "index0") return integer(index);
  if (name == "revindex") return integer(size - index);
  if (name == "revindex0") return integer(size - index - 1);
  if (name == "first") return index == 0;
  if (name == "last") return index + 1 == size;
  if (name == "length") return integer(size);
  if (name == "depth") return Value(std::int64_t{loop.depth} + 1);
  if (name == "depth0") return Value(std::int64_t{loop.depth});
  if (name == "previtem") return index > 0 ? items[index - 1] : undefined("there is no previous item");
  if (name == "nextitem") return index + 1 < size ? items[index + 1] : undefined("there is no next item");
  fail("'loop.{}' is not supported in a chat template", name);
}

Value make_range(const Arguments& arguments, Budget& budget) {
  constexpr std::int64_t kMaxRange = 100000;
  const Bound args("range", arguments, {"start", "stop", "step"}, 1);
  const std::int64_t first = args.integer_or(0, 0);
  const std::int64_t start = args.has(1) ? first : 0, stop = args.has(1) ? args.integer_or(1, 0) : first;
  const std::int64_t step = args.integer_or(2, 1);
  if (step == 0) fail("range: expected a step other than 0, got 0");
  std::vector<Value> items;
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<std::int64_t>(items.size()) >= kMaxRange) {
      fail("range: expected at most {} items, got more", kMaxRange);
    }
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_sequence(std::move(items), budget, Sequence::kRange);
}

Value make_dict(const Arguments& arguments, Budget& budget) {
  std::vector<std::pair<Text, Value>> entries;
  for (const Value& value : arguments.positional) {
    const Dict* dict = as_dict(value);
    if (dict == nullptr || arguments.positional.size() > 1) wrong_type("dict", "at most one dict", value);
    budget.memory(dict->entries.size() * sizeof(entries[0]));
    entries = dict->entries;
  }
  for (const auto& [name, value] : arguments.named) {
    entries.emplace_back(std::make_shared<const std::string>(name), value);
  }
  return make_dict(std::move(entries), budget);
}

Value format_time(const Arguments& arguments, std::time_t now, Budget& budget) {
  constexpr std::size_t kMaxBytes = 1000;
  const std::string format = Bound("strftime_now", arguments, {"format"}, 1).text(0);
  if (format.find('\0') != std::string::npos)
    fail("strftime_now: expected a format without a zero byte, got one with it");
  std::tm local{};
  localtime_r(&now, &local);
  char text[kMaxBytes];
  // The additional character tells an empty result from a failure, which is 0.
  const std::size_t size = std::strftime(text, kMaxBytes, (format + "|").c_str(), &local);
  if (size == 0) fail("strftime_now: expected a time of at most {} bytes, got a longer one", kMaxBytes);
  return make_text(std::string(text, size - 1), budget);
}

}  // namespace foe::jinja
