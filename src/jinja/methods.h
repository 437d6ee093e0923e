// What templates call by name: methods, filters, tests and functions. All throw Error for wrong arguments, and if the
// budget is exceeded. Private to this folder.
#pragma once

#include <ctime>
#include <initializer_list>

#include "jinja/value.h"

namespace foe::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Binds the arguments of a call to its parameters. Throws Error for an argument that no parameter takes, for one that
// is given twice, and if one of the first `required` is missing. Refers to the arguments, which must outlive it.
class Bound {
 public:
  Bound(std::string_view callee, const Arguments& arguments, std::initializer_list<std::string_view> parameters,
        std::size_t required = 0);

  bool has(std::size_t i) const { return values_[i] != nullptr; }
  const Value& operator[](std::size_t i) const { return *values_[i]; }
  // These return argument i, or the fallback if it is missing or none. They throw Error, naming the parameter, if it
  // has another type.
  const std::string& text(std::size_t i) const;
  const std::string* text_or_null(std::size_t i) const;
  std::int64_t integer_or(std::size_t i, std::int64_t fallback) const;
  bool truthy_or(std::size_t i, bool fallback) const;

 private:
  bool given(std::size_t i) const { return has(i) && !is_none(*values_[i]); }
  [[noreturn]] void refuse(std::size_t i, std::string_view expected) const;

  std::string_view callee_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

// Whether the Python type of `value` has this method, supported here or not.
bool is_method(const Value& value, std::string_view name);
Value call_method(const Method& method, const Arguments& arguments, Budget& budget);
Value loop_attribute(const LoopState& loop, std::string_view name);

Value apply_filter(std::string_view name, const Value& input, const Arguments& arguments, Budget& budget);
bool apply_test(std::string_view name, const Value& input, const Arguments& arguments, Budget& budget);

// Python's range(), with the sandbox's limit of 100,000 items.
Value make_range(const Arguments& arguments, Budget& budget);
// Python's dict(other, name=value, ...).
Value make_dict(const Arguments& arguments, Budget& budget);
// The function strftime_now(format): formats `now` in local time.
Value format_time(const Arguments& arguments, std::time_t now, Budget& budget);

}  // namespace foe::jinja
