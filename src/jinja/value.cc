#include "jinja/value.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/strings.h"

namespace foe::jinja {
namespace {

int nesting_of(const Value& value) {
  if (const Sequence* sequence = as_sequence(value)) return sequence->nesting;
  if (const Dict* dict = as_dict(value)) return dict->nesting;
  if (const auto* method = as<std::shared_ptr<const Method>>(value)) return 1 + nesting_of((*method)->self);
  if (const auto* loop = as<std::shared_ptr<const LoopState>>(value)) return 1 + (*loop)->sequence->nesting;
  return 0;
}

[[noreturn]] void too_deep() {
  fail("expected values nested at most {} deep, got deeper ones", kMaxNesting);
}

// Returns the nesting of a value that contains `value`. Destroying, printing and comparing values recurse this deep.
int deeper(int nesting, const Value& value) {
  const int result = std::max(nesting, 1 + nesting_of(value));
  if (result > kMaxNesting) too_deep();
  return result;
}

}  // namespace

void Budget::work(std::size_t units) {
  if (units > work_left_) fail("the template does too much work: it is past its limit of steps");
  work_left_ -= units;
}

void Budget::memory(std::size_t bytes) {
  if (bytes > memory_left_) fail("the texts and values that the template makes are past their limit of memory");
  memory_left_ -= bytes;
  work(bytes);
}

const Value* Dict::find(std::string_view key) const {
  const auto found = index.find(key);
  return found == index.end() ? nullptr : &entries[found->second].second;
}

const Value* Dict::find(const Value& key, Budget& budget) const {
  const double* number = as<double>(key);
  if (number && *number == std::floor(*number) && std::abs(*number) < 0x1p53)
    return find(Value(static_cast<std::int64_t>(*number)), budget);
  const Text text = as<bool>(key) ? key_of(*as_integer(key)) : key_of(key);
  if (!text) return nullptr;
  budget.work(text->size());
  return find(*text);
}

Text key_of(const Value& value) {
  if (const Text* text = as<Text>(value)) return *text;
  const auto* integer = as<std::int64_t>(value);
  return integer ? std::make_shared<const std::string>(fmt::format("\xff{}", *integer)) : nullptr;
}

Value key_value(const Text& key) {
  if (!key->starts_with('\xff')) return key;
  return static_cast<std::int64_t>(std::stoll(key->substr(1)));
}

namespace {
// What tells markup from other texts: the way in which its memory is freed.
struct MarkupDeleter {
  void operator()(const std::string* text) const { delete text; }
};
}  // namespace

Value make_markup(std::string text, Budget& budget) {
  budget.memory(text.size());
  return Text(new std::string(std::move(text)), MarkupDeleter{});
}

bool is_markup(const Value& value) {
  const Text* text = as<Text>(value);
  return text != nullptr && std::get_deleter<MarkupDeleter>(*text) != nullptr;
}

std::string escaped(std::string text, Budget& budget) {
  constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
      {"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
  for (const auto& [character, entity] : kEntities) text = replace_all(text, character, entity, -1, budget);
  return text;
}

std::string escaped_unless_markup(const Value& value, Budget& budget) {
  return is_markup(value) ? to_text(value, budget) : escaped(to_text(value, budget), budget);
}

Value undefined(std::string why) {
  return Undefined{std::make_shared<const std::string>(std::move(why))};
}

Value make_text(std::string text, Budget& budget) {
  budget.memory(text.size());
  return std::make_shared<const std::string>(std::move(text));
}

Value make_sequence(std::vector<Value> items, Budget& budget, Sequence::Kind kind) {
  budget.memory(sizeof(Sequence) + items.size() * sizeof(Value));
  auto sequence = std::make_shared<Sequence>();
  for (const Value& item : items) sequence->nesting = deeper(sequence->nesting, item);
  sequence->kind = kind;
  sequence->items = std::move(items);
  return SequencePtr(std::move(sequence));
}

Value make_dict(std::vector<std::pair<Text, Value>> entries, Budget& budget) {
  budget.memory(sizeof(Dict) + entries.size() * (sizeof(entries[0]) + 64));  // 64: bytes of a node of the index
  auto dict = std::make_shared<Dict>();
  for (auto& [key, value] : entries) {
    budget.work(key->size() + Budget::kNodeWork);
    dict->nesting = deeper(dict->nesting, value);
    if (const auto found = dict->index.find(*key); found != dict->index.end()) {
      dict->entries[found->second].second = std::move(value);
      continue;
    }
    dict->index.emplace(*key, dict->entries.size());
    dict->entries.emplace_back(std::move(key), std::move(value));
  }
  return DictPtr(std::move(dict));
}

Value from_json(const nlohmann::ordered_json& json, Budget& budget, int depth) {
  if (depth > kMaxNesting) too_deep();
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::boolean:
      return json.get<bool>();
    case Type::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
        fail("expected integers within 64 bits, got {}", json.get<std::uint64_t>());
      }
      return json.get<std::int64_t>();
    case Type::number_integer:
      return json.get<std::int64_t>();
    case Type::number_float:
      return json.get<double>();
    case Type::string:
      return make_text(json.get_ref<const std::string&>(), budget);
    case Type::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(from_json(item, budget, depth + 1));
      return make_sequence(std::move(items), budget);
    }
    case Type::object: {
      std::vector<std::pair<Text, Value>> entries;
      for (const auto& [key, value] : json.items()) {
        entries.emplace_back(std::make_shared<const std::string>(key), from_json(value, budget, depth + 1));
        budget.memory(key.size());
      }
      return make_dict(std::move(entries), budget);
    }
    default:
      return None{};
  }
}

std::optional<std::int64_t> as_integer(const Value& value) {
  if (const bool* boolean = as<bool>(value)) return *boolean ? 1 : 0;
  if (const auto* integer = as<std::int64_t>(value)) return *integer;
  return std::nullopt;
}

std::optional<double> as_number(const Value& value) {
  if (const double* number = as<double>(value)) return *number;
  if (const auto integer = as_integer(value)) return static_cast<double>(*integer);
  return std::nullopt;
}

std::string_view type_name(const Value& value) {
  constexpr std::string_view kNames[] = {"Undefined", "None",      "bool", "int",    "float", "str",     "list",
                                         "dict",      "namespace", "loop", "method", "macro", "function"};
  static_assert(std::size(kNames) == std::variant_size_v<Value>);
  if (const Sequence* sequence = as_sequence(value)) {
    constexpr std::string_view kKinds[] = {"list",        "tuple",      "range",   "dict_keys",
                                           "dict_values", "dict_items", "iterator"};
    return kKinds[sequence->kind];
  }
  return kNames[value.index()];
}

void wrong_type(std::string_view what, std::string_view expected, const Value& value) {
  if (const auto* missing = as<Undefined>(value)) fail("{}", *missing->why);
  fail("{}: expected {}, got {}", what, expected, type_name(value));
}

bool truthy(const Value& value) {
  if (is_undefined(value) || is_none(value)) return false;
  if (const auto number = as_number(value)) return *number != 0;
  if (const std::string* text = as_text(value)) return !text->empty();
  if (const Sequence* sequence = as_sequence(value)) {
    return sequence->kind == Sequence::kIterator || !sequence->items.empty();
  }
  if (const Dict* dict = as_dict(value)) return !dict->entries.empty();
  return true;
}

std::vector<Value> iterate(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (is_undefined(value)) return items;
  if (const Sequence* sequence = as_sequence(value)) {
    const std::size_t begin = sequence->used;
    budget.memory((sequence->items.size() - begin) * sizeof(Value));
    items.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(begin), sequence->items.end());
    if (sequence->kind == Sequence::kIterator) sequence->used = sequence->items.size();
    return items;
  }
  if (const Dict* dict = as_dict(value)) {
    budget.memory(dict->entries.size() * sizeof(Value));
    for (const auto& [key, unused] : dict->entries) items.push_back(key_value(key));
    return items;
  }
  if (const std::string* text = as_text(value)) {
    for (std::size_t i = 0; i < text->size();) {
      const std::size_t size = character_size(*text, i);
      budget.memory(kTextBytes);
      items.push_back(make_text(text->substr(i, size), budget));
      i += size;
    }
    return items;
  }
  fail("expected something to iterate over, got {}", type_name(value));
}

std::size_t length(const Value& value, Budget& budget) {
  if (is_undefined(value)) return 0;
  if (const std::string* text = as_text(value)) return count_characters(*text, budget);
  if (const Dict* dict = as_dict(value)) return dict->entries.size();
  const Sequence* sequence = as_sequence(value);
  if (sequence == nullptr || sequence->kind == Sequence::kIterator) {
    wrong_type("length", "a text, a list or a dict", value);
  }
  return sequence->items.size();
}

bool equals(const Value& a, const Value& b, Budget& budget) {
  budget.work(Budget::kNodeWork);
  if (const auto x = as_integer(a), y = as_integer(b); x && y) return *x == *y;
  if (const auto x = as_number(a), y = as_number(b); x && y) return *x == *y;
  if (a.index() != b.index()) return false;
  if (is_undefined(a) || is_none(a)) return true;
  if (const std::string* x = as_text(a), *y = as_text(b); x) {
    budget.work(std::min(x->size(), y->size()));
    return *x == *y;
  }
  if (const Sequence* x = as_sequence(a), *y = as_sequence(b); x) {
    if (x == y) return true;
    if (x->kind != y->kind || x->kind == Sequence::kIterator || x->items.size() != y->items.size()) return false;
    for (std::size_t i = 0; i < x->items.size(); ++i) {
      if (!equals(x->items[i], y->items[i], budget)) return false;
    }
    return true;
  }
  if (const Dict* x = as_dict(a), *y = as_dict(b); x) {
    if (x == y) return true;
    if (x->entries.size() != y->entries.size()) return false;
    for (const auto& [key, value] : x->entries) {
      budget.work(key->size());
      const Value* other = y->find(*key);
      if (other == nullptr || !equals(value, *other, budget)) return false;
    }
    return true;
  }
  if (const auto* x = as<Namespace*>(a)) return *x == std::get<Namespace*>(b);
  if (const auto* x = as<std::shared_ptr<const Closure>>(a)) return *x == std::get<std::shared_ptr<const Closure>>(b);
  if (const auto* x = as<Function>(a)) return *x == std::get<Function>(b);
  return false;  // loops and methods are equal to nothing
}

bool less(const Value& a, const Value& b, Budget& budget) {
  budget.work(Budget::kNodeWork);
  if (const auto x = as_integer(a), y = as_integer(b); x && y) return *x < *y;
  if (const auto x = as_number(a), y = as_number(b); x && y) return *x < *y;
  if (const std::string* x = as_text(a), *y = as_text(b); x && y) {
    budget.work(std::min(x->size(), y->size()));
    return *x < *y;  // UTF-8 sorts like its code points
  }
  const Sequence *x = as_sequence(a), *y = as_sequence(b);
  if (!x || !y || x->kind != y->kind || x->kind > Sequence::kTuple) {
    for (const Value* side : {&a, &b}) {
      if (is_undefined(*side)) wrong_type("comparison", "a value", *side);
    }
    fail("expected two numbers, texts or lists to compare, got {} and {}", type_name(a), type_name(b));
  }
  const std::size_t common = std::min(x->items.size(), y->items.size());
  for (std::size_t i = 0; i < common; ++i) {
    if (!equals(x->items[i], y->items[i], budget)) return less(x->items[i], y->items[i], budget);
  }
  return x->items.size() < y->items.size();
}

}  // namespace foe::jinja
