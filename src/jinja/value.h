// The values of a template's expressions: Python's, as far as chat templates see them. Private to this folder.
//
// Values never change once made (the sandbox refuses list.append and its like), so they are shared freely. The
// exceptions are iterators, which are used up, and namespaces, which belong to the rendering and not to their values.
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

// Lists in lists, expressions in expressions, blocks in blocks.
inline constexpr int kMaxNesting = 200;

// What one rendering may still do. Every spending throws Error when it is more than is left.
class Budget {
 public:
  // About a nanosecond each: a byte that is read or written is one, an evaluated node kNodeWork.
  void work(std::size_t units);
  // Bytes of strings and lists made, whether or not they are still in use; they are work, too.
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
struct Macro;  // jinja_ast.h

struct Undefined {
  std::shared_ptr<const std::string> why;  // "'x' is undefined"
};
struct None {};
using Text = std::shared_ptr<const std::string>;  // UTF-8
enum class Function { kRange, kDict, kNamespace, kRaiseException, kStrftimeNow };

using Value = std::variant<Undefined, None, bool, std::int64_t, double, Text, std::shared_ptr<const Sequence>,
                           std::shared_ptr<const Dict>, Namespace*, std::shared_ptr<const LoopState>,
                           std::shared_ptr<const Method>, const Macro*, Function>;
using SequencePtr = std::shared_ptr<const Sequence>;
using DictPtr = std::shared_ptr<const Dict>;

struct Sequence {
  enum Kind { kList, kTuple, kRange, kKeys, kValues, kItems, kIterator };
  Kind kind = kList;
  std::vector<Value> items;
  int nesting = 1;
  mutable std::size_t used = 0;  // items that an iterator has given away already
};

// Keys are strings, in the order in which they were first set.
struct Dict {
  std::vector<std::pair<Text, Value>> entries;
  std::map<std::string_view, std::size_t> index;  // into entries, whose texts it refers to
  int nesting = 1;

  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::map<std::string, Value, std::less<>> members;
};

struct LoopState {
  SequencePtr sequence;
  std::size_t index = 0;
};

// A method with the value it was taken from: 'abc'.upper.
struct Method {
  Value self;
  std::string name;
};

Value undefined(std::string why);
Value make_text(std::string text, Budget& budget);
Value make_sequence(std::vector<Value> items, Budget& budget, Sequence::Kind kind = Sequence::kList);
// Of two equal keys the last value counts.
Value make_dict(std::vector<std::pair<Text, Value>> entries, Budget& budget);
// Throws Error for integers beyond 64 bits and for what is nested deeper than kMaxNesting.
Value from_json(const nlohmann::ordered_json& json, Budget& budget, int depth = 0);

// Builds a text piece by piece, each of them within the budget before it is added.
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
// Booleans are the integers 0 and 1, as in Python.
std::optional<std::int64_t> as_integer(const Value& value);
std::optional<double> as_number(const Value& value);

// Python's name of the type, for messages.
std::string_view type_name(const Value& value);
// Throws Error "WHAT: expected EXPECTED, got TYPE", or why the value is undefined.
[[noreturn]] void wrong_type(std::string_view what, std::string_view expected, const Value& value);

bool truthy(const Value& value);
// The items of a list, keys of a dict, characters of a text. An iterator is used up.
std::vector<Value> iterate(const Value& value, Budget& budget);
// Throws Error if it has none.
std::size_t length(const Value& value, Budget& budget);

bool equals(const Value& a, const Value& b, Budget& budget);
// a < b, or Error where Python has no order.
bool less(const Value& a, const Value& b, Budget& budget);

// -- printing (jinja_print.cc) --------------------------------------------------------------------------------------

// Python's str(value).
std::string to_text(const Value& value, Budget& budget);
void print(const Value& value, TextBuilder& out);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; without it all is one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// Python's json.dumps.
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace foe::jinja
