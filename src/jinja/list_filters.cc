#include <algorithm>

#include "base/error.h"
#include "jinja/filters.h"
#include "jinja/operators.h"
#include "jinja/strings.h"

namespace foe::jinja {
namespace {

// Returns x.name, x.a.b or x.0, as filters with `attribute=` read it.
Value dotted(Value object, const Value& path, Budget& budget) {
  const std::string* text = as_text(path);
  if (text == nullptr) return get_item(object, path, budget);
  const std::string dot = ".";
  for (const std::string_view part : split(*text, &dot, -1, /*from_right=*/false, budget)) {
    const auto index = parse_integer(part);
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
  length(call.input, call.budget);  // throws if the input has no length, and so no end
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
  return is_markup(call.input) ? make_markup(out.take(), call.budget) : out.value();
}

Value items(const FilterCall& call) {
  call.bind({});
  const Dict* dict = as_dict(call.input);
  if (dict == nullptr && !is_undefined(call.input)) wrong_type("items", "a dict", call.input);
  std::vector<Value> pairs;
  if (dict != nullptr) {
    for (const auto& [key, value] : dict->entries) {
      pairs.push_back(make_sequence({key_value(key), value}, call.budget, Sequence::kTuple));
    }
  }
  return call.list(std::move(pairs), Sequence::kIterator);
}

// Returns what sorting and `unique` compare: texts without regard to case, unless `case_sensitive`.
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
  if (args.has(0) && !as_integer(args[0])) wrong_type("sort: reverse", "true or false", args[0]);
  auto entries = keyed(iterate(call.input, call.budget), given(args, 2), args.truthy_or(1, false), call.budget);
  // As in Jinja keys are lists, so that equal values need no order: [none, none] can be sorted.
  for (Keyed& entry : entries) entry.key = call.list({entry.key});
  return call.list(sorted(std::move(entries), args.has(0) && truthy(args[0]), call.budget));
}

Value dictsort(const FilterCall& call) {
  const Bound args = call.bind({"case_sensitive", "by", "reverse"});
  const std::string by = args.has(1) ? args.text(1) : "key";
  if (by != "key" && by != "value") fail("dictsort: expected 'key' or 'value' to sort by, got '{}'", by.substr(0, 60));
  const Dict* dict = as_dict(call.input);
  if (dict == nullptr) wrong_type("dictsort", "a dict", call.input);
  std::vector<Keyed> entries;
  for (const auto& [key, value] : dict->entries) {
    entries.push_back({sort_key(by == "key" ? key_value(key) : value, args.truthy_or(0, false), call.budget),
                       make_sequence({key_value(key), value}, call.budget, Sequence::kTuple)});
  }
  return call.list(sorted(std::move(entries), args.truthy_or(2, false), call.budget));
}

// Whether Python could put the value into a set.
bool is_hashable(const Value& value) {
  const Sequence* sequence = as_sequence(value);
  if (sequence == nullptr || sequence->kind == Sequence::kIterator) return as_dict(value) == nullptr;
  return sequence->kind == Sequence::kTuple && std::all_of(sequence->items.begin(), sequence->items.end(), is_hashable);
}

Value unique(const FilterCall& call) {
  const Bound args = call.bind({"case_sensitive", "attribute"});
  auto entries = keyed(iterate(call.input, call.budget), given(args, 1), args.truthy_or(0, false), call.budget);
  std::vector<Value> seen, result;
  for (Keyed& entry : entries) {
    if (!is_hashable(entry.key)) wrong_type("unique", "items that are no lists or dicts", entry.key);
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

// Returns the arguments without the first `count` positional ones, which name what is called with the rest.
Arguments rest_of(const Arguments& arguments, std::size_t count) {
  const auto skipped = static_cast<std::ptrdiff_t>(std::min(count, arguments.positional.size()));
  return {{arguments.positional.begin() + skipped, arguments.positional.end()}, arguments.named};
}

const std::string& name_at(const FilterCall& call, std::size_t i, std::string_view what) {
  const std::string* name = i < call.arguments.positional.size() ? as_text(call.arguments.positional[i]) : nullptr;
  if (name == nullptr) fail("{}: expected the name of {}, got none", call.name, what);
  return *name;
}

// map(attribute="name", default=...) or map("filter", its arguments)
Value map(const FilterCall& call) {
  std::vector<Value> result;
  if (!truthy(call.input)) return call.list({}, Sequence::kIterator);  // none, as well as an empty list
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

// select, reject, selectattr and rejectattr: select by a test, or by what is truthy.
template <bool kKeep, bool kByAttribute>
Value select(const FilterCall& call) {
  constexpr std::size_t kTest = kByAttribute ? 1 : 0;
  if (!truthy(call.input)) return call.list({}, Sequence::kIterator);  // none, as well as an empty list
  const bool has_test = call.arguments.positional.size() > kTest;
  const Arguments rest = rest_of(call.arguments, kTest + 1);
  if (kByAttribute && call.arguments.positional.empty())
    fail("{}: expected the name of an attribute, got none", call.name);
  std::vector<Value> result;
  for (const Value& input : iterate(call.input, call.budget)) {
    call.budget.work(Budget::kNodeWork);
    const Value part = kByAttribute ? dotted(input, call.arguments.positional[0], call.budget) : input;
    const bool holds = has_test ? apply_test(name_at(call, kTest, "a test"), part, rest, call.budget) : truthy(part);
    if (holds == kKeep) result.push_back(input);
  }
  return call.list(std::move(result), Sequence::kIterator);
}

constexpr Filter kListFilters[] = {
    {"count", length_of},
    {"dictsort", dictsort},
    {"first", first},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length_of},
    {"list", list},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", select<false, false>},
    {"rejectattr", select<false, true>},
    {"reverse", reverse},
    {"select", select<true, false>},
    {"selectattr", select<true, true>},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

std::span<const Filter> list_filters() {
  return kListFilters;
}

}  // namespace foe::jinja
