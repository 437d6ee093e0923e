// Jinja's tests: what may follow "is".
#include <algorithm>

#include "base/error.h"
#include "jinja/methods.h"
#include "jinja/operators.h"
#include "jinja/strings.h"

namespace foe::jinja {
namespace {

bool is_number(const Value& value) {
  return as_number(value).has_value();
}
bool is_boolean(const Value& value) {
  return as<bool>(value) != nullptr;
}
bool is_true(const Value& value) {
  return is_boolean(value) && truthy(value);
}
bool is_false(const Value& value) {
  return is_boolean(value) && !truthy(value);
}
bool is_integer(const Value& value) {
  return as<std::int64_t>(value) != nullptr;
}
bool is_float(const Value& value) {
  return as<double>(value) != nullptr;
}
bool is_string(const Value& value) {
  return as_text(value) != nullptr;
}
bool is_mapping(const Value& value) {
  return as_dict(value) != nullptr;
}
bool is_defined(const Value& value) {
  return !is_undefined(value);
}
// Whether the value has a length and can be subscripted. Undefined counts.
bool is_sequence(const Value& value) {
  const Sequence* sequence = as_sequence(value);
  return is_string(value) || is_mapping(value) || is_undefined(value) ||
         (sequence != nullptr && sequence->kind <= Sequence::kRange);
}
bool is_iterable(const Value& value) {
  return is_sequence(value) || as_sequence(value) != nullptr || as<std::shared_ptr<const LoopState>>(value) != nullptr;
}
bool is_callable(const Value& value) {
  return as<std::shared_ptr<const Method>>(value) != nullptr || as<std::shared_ptr<const Closure>>(value) != nullptr ||
         as<std::shared_ptr<const LoopState>>(value) != nullptr || as<Function>(value) != nullptr ||
         is_undefined(value);
}

struct PlainTest {
  std::string_view name;
  bool (*holds)(const Value&);
};
constexpr PlainTest kPlainTests[] = {
    {"defined", is_defined}, {"undefined", is_undefined}, {"none", is_none},         {"string", is_string},
    {"mapping", is_mapping}, {"sequence", is_sequence},   {"iterable", is_iterable}, {"number", is_number},
    {"integer", is_integer}, {"float", is_float},         {"boolean", is_boolean},   {"true", is_true},
    {"false", is_false},     {"callable", is_callable},
};

struct ComparingTest {
  std::string_view names[3];
  Comparison op;
};
constexpr ComparingTest kComparingTests[] = {
    {{"equalto", "eq", "=="}, Comparison::kEqual},
    {{"ne", "!=", "ne"}, Comparison::kNotEqual},
    {{"lessthan", "lt", "<"}, Comparison::kLess},
    {{"le", "<=", "le"}, Comparison::kLessEqual},
    {{"greaterthan", "gt", ">"}, Comparison::kGreater},
    {{"ge", ">=", "ge"}, Comparison::kGreaterEqual},
    {{"in", "in", "in"}, Comparison::kIn},
};

// Python's `is`, as far as it is defined: of numbers and texts it depends on how they were made.
bool is_same(const Value& a, const Value& b) {
  for (const Value* value : {&a, &b})
    if (is_number(*value) && !is_boolean(*value)) fail("sameas: expected no numbers (use ==), got them");
  if (a.index() != b.index()) return false;
  return std::visit(
      [&](const auto& one) {
        using T = std::decay_t<decltype(one)>;
        if constexpr (std::is_same_v<T, None>)
          return true;
        else if constexpr (std::is_same_v<T, Undefined>)
          return one.why == std::get<T>(b).why;
        else
          return one == std::get<T>(b);
      },
      a);
}

bool divides(const Value& value, const Value& divisor, std::int64_t rest, Budget& budget) {
  return equals(binary(Binary::kModulo, value, divisor, budget), rest, budget);
}

}  // namespace

bool apply_test(std::string_view name, const Value& input, const Arguments& arguments, Budget& budget) {
  for (const PlainTest& test : kPlainTests) {
    if (name != test.name) continue;
    Bound(name, arguments, {});
    return test.holds(input);
  }
  for (const ComparingTest& test : kComparingTests) {
    if (std::find(std::begin(test.names), std::end(test.names), name) == std::end(test.names)) continue;
    return compare(test.op, input, Bound(name, arguments, {"other"}, 1)[0], budget);
  }
  if (name == "sameas") return is_same(input, Bound(name, arguments, {"other"}, 1)[0]);
  if (name == "divisibleby") return divides(input, Bound(name, arguments, {"num"}, 1)[0], 0, budget);
  Bound(name, arguments, {});
  if (name == "odd" || name == "even") return divides(input, std::int64_t{2}, name == "odd" ? 1 : 0, budget);
  if (name == "lower" || name == "upper") {
    const std::string text = to_text(input, budget);
    const std::string lowered = to_lower(text, budget), raised = to_upper(text, budget);
    return lowered != raised && text == (name == "lower" ? lowered : raised);
  }
  fail("the test '{}' is not supported in a chat template", name);
}

}  // namespace foe::jinja
