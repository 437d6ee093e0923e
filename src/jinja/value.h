// The values of a template's expressions. They behave like Python's, as far as chat templates can tell. Private to this
// folder.
//
// Values never change once they are made (the sandbox refuses list.append and similar methods), so they can be shared.
// The exceptions are iterators, which are used up, and namespaces, which the evaluator owns.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace foe::jinja {

// The deepest nesting of lists in lists and of expressions in expressions.
inline constexpr int kMaxNesting = 200;

// The quota of one rendering. Both functions throw Error if more is spent than is left.
class Budget {
 public:
  // Spends units of work, of about a nanosecond each. A byte that is read or written is one unit, an evaluated node
  // kNodeWork.
  void work(std::size_t units);
  // Spends bytes for strings and lists that are made. They are not given back when a value is destroyed, and count as
  // work, too.
  void memory(std::size_t bytes);

  static constexpr std::size_t kNodeWork = 250;

 private:
  std::size_t work_left_ = std::size_t{1} << 27;
  std::size_t memory_left_ = std::size_t{1} << 26;
};

struct Sequence;
struct Dict;
struct Namespace;
struct LoopState;
struct Method;
struct Closure;
struct Macro;  // ast.h
struct For;    // ast.h
struct Scope;  // scope.h

struct Undefined {
  std::shared_ptr<const std::string> why;  // such as "'x' is undefined"
};
struct None {};
using Text = std::shared_ptr<const std::string>;  // UTF-8
enum class Function { kRange, kDict, kNamespace, kRaiseException, kStrftimeNow };

using Value = std::variant<Undefined, None, bool, std::int64_t, double, Text, std::shared_ptr<const Sequence>,
                           std::shared_ptr<const Dict>, Namespace*, std::shared_ptr<const LoopState>,
                           std::shared_ptr<const Method>, std::shared_ptr<const Closure>, Function>;
using SequencePtr = std::shared_ptr<const Sequence>;
using DictPtr = std::shared_ptr<const Dict>;

struct Sequence {
  enum Kind { kList, kTuple, kRange, kKeys, kValues, kItems, kIterator };
  Kind kind = kList;
  std::vector<Value> items;
  int nesting = 1;
  mutable std::size_t used = 0;  // how many items an iterator has returned already
};

// Keys are texts and integers. An integer is kept as a text that is no UTF-8 (key_of), so that no text is equal to it.
// Entries are in the order in which their keys were first set.
struct Dict {
  std::vector<std::pair<Text, Value>> entries;
  std::map<std::string_view, std::size_t> index;  // of each key in `entries`, whose texts it refers to
  int nesting = 1;

  const Value* find(std::string_view key) const;
  // Returns the value of a key of any type; null if there is none.
  const Value* find(const Value& key, Budget& budget) const;
};
// Returns how a dict keeps a key, or null if it is neither a text nor an integer, and the key that is kept so.
Text key_of(const Value& value);
Value key_value(const Text& key);

struct Namespace {
  std::map<std::string, Value, std::less<>> members;
};

struct LoopState {
  SequencePtr sequence;
  std::size_t index = 0;
  int depth = 0;                    // how often the loop has been called within itself
  const For* recursive = nullptr;   // the loop, if it can be called
  std::weak_ptr<Scope> scope = {};  // around the loop
};

// A macro with the scope that it was defined in, whose variables it sees as long as that lives. (The scope may hold the
// macro, so the macro cannot hold the scope.)
struct Closure {
  const Macro* macro;
  std::weak_ptr<Scope> scope;
};

// A method with its object, such as 'abc'.upper or loop.cycle.
struct Method {
  Value self;
  std::string name;
};

Value undefined(std::string why);
Value make_text(std::string text, Budget& budget);
// Makes a text that is marked as safe, as by the filter `safe`: MarkupSafe's Markup. It is like any other text, but
// what is added to it is escaped first, and `escape` leaves it as it is.
Value make_markup(std::string text, Budget& budget);
bool is_markup(const Value& value);
std::string escaped(std::string text, Budget& budget);  // HTML's special characters as entities
// Returns the text of a value that is added to markup.
std::string escaped_unless_markup(const Value& value, Budget& budget);
Value make_sequence(std::vector<Value> items, Budget& budget, Sequence::Kind kind = Sequence::kList);
// If a key comes twice, its last value counts.
Value make_dict(std::vector<std::pair<Text, Value>> entries, Budget& budget);
// Makes a value from JSON. Throws Error for integers beyond 64 bits and for nesting deeper than kMaxNesting.
Value from_json(const nlohmann::ordered_json& json, Budget& budget, int depth = 0);

// Builds a text from pieces. Each is spent from the budget before it is added.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(&budget) {}
  void add(std::string_view piece) {
    budget_->memory(piece.size());
    budget_->work(kPieceWork);
    text_ += piece;
  }
  const std::string& text() const { return text_; }
  std::string take() { return std::move(text_); }
  Value value() { return std::make_shared<const std::string>(std::move(text_)); }

 private:
  static constexpr std::size_t kPieceWork = 20;

  Budget* budget_;
  std::string text_;
};

template <typename T>
const T* as(const Value& value) {
  return std::get_if<T>(&value);
}
inline const std::string* as_text(const Value& value) {
  const Text* text = as<Text>(value);
  return text == nullptr ? nullptr : text->get();
}
inline const Sequence* as_sequence(const Value& value) {
  const SequencePtr* sequence = as<SequencePtr>(value);
  return sequence == nullptr ? nullptr : sequence->get();
}
inline const Dict* as_dict(const Value& value) {
  const DictPtr* dict = as<DictPtr>(value);
  return dict == nullptr ? nullptr : dict->get();
}
inline bool is_undefined(const Value& value) {
  return std::holds_alternative<Undefined>(value);
}
inline bool is_none(const Value& value) {
  return std::holds_alternative<None>(value);
}
// Return the value as a number, or nothing if it is not one. Booleans are the integers 0 and 1, as in Python.
std::optional<std::int64_t> as_integer(const Value& value);
std::optional<double> as_number(const Value& value);

// Returns Python's name of the type, for messages.
std::string_view type_name(const Value& value);
// Throws Error "WHAT: expected EXPECTED, got TYPE" or, if the value is undefined, the reason for that.
[[noreturn]] void wrong_type(std::string_view what, std::string_view expected, const Value& value);

bool truthy(const Value& value);
// Returns the items of a list, the keys of a dict or the characters of a text. An iterator is used up. Throws Error for
// other values.
std::vector<Value> iterate(const Value& value, Budget& budget);
// Returns the length. Throws Error if the value has none.
std::size_t length(const Value& value, Budget& budget);

bool equals(const Value& a, const Value& b, Budget& budget);
// Whether a < b. Throws Error if Python has no order for the two.
bool less(const Value& a, const Value& b, Budget& budget);

// -- printing (print.cc) --------------------------------------------------------------------------------------------

// Returns Python's str(value), and repr(value).
std::string to_repr(const Value& value, Budget& budget);
std::string to_text(const Value& value, Budget& budget);
void print(const Value& value, TextBuilder& out);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // the indent of one level; none: all is on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// Returns Python's json.dumps(value).
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace foe::jinja
