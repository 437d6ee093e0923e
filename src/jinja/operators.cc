#include "jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "jinja/formatting.h"
#include "jinja/methods.h"
#include "jinja/strings.h"

namespace foe::jinja {
namespace {

[[noreturn]] void wrong_operands(std::string_view expected, const Value& a, const Value& b) {
  for (const Value* side : {&a, &b}) {
    if (is_undefined(*side)) wrong_type("an operator", expected, *side);
  }
  fail("expected {}, got {} and {}", expected, type_name(a), type_name(b));
}

[[noreturn]] void overflow() {
  fail("expected a result within 64 bits, got a larger integer");
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == -1) {
    std::int64_t negated = 0;
    if (__builtin_sub_overflow(0, a, &negated)) overflow();
    return negated;
  }
  return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

double floor_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

double float_floor_divide(double a, double b) {
  const double quotient = (a - floor_modulo(a, b)) / b;
  const double floor = std::floor(quotient);
  if (quotient == 0) return std::copysign(0.0, a / b);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

Value integer_power(std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) fail("expected a divisor other than 0, got 0");
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  std::int64_t result = 1;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 == 1 && __builtin_mul_overflow(result, base, &result)) overflow();
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value integer_arithmetic(Binary::Op op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (op) {
    case Binary::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return result;
    case Binary::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return result;
    case Binary::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return result;
    case Binary::kPower:
      return integer_power(a, b);
    default:
      break;
  }
  if (b == 0) fail("expected a divisor other than 0, got 0");
  if (op == Binary::kDivide) return static_cast<double>(a) / static_cast<double>(b);
  if (op == Binary::kFloorDivide) return floor_divide(a, b);
  return b == -1 ? std::int64_t{0} : a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
}

Value float_arithmetic(Binary::Op op, double a, double b) {
  switch (op) {
    case Binary::kAdd:
      return a + b;
    case Binary::kSubtract:
      return a - b;
    case Binary::kMultiply:
      return a * b;
    case Binary::kPower: {
      const double result = std::pow(a, b);
      if ((a == 0 && b < 0) || (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) ||
          (std::isinf(result) && std::isfinite(a) && std::isfinite(b))) {
        fail("expected a power that is a finite real number, got {} ** {}", a, b);
      }
      return result;
    }
    default:
      break;
  }
  if (b == 0) fail("expected a divisor other than 0, got 0");
  if (op == Binary::kDivide) return a / b;
  return op == Binary::kFloorDivide ? float_floor_divide(a, b) : floor_modulo(a, b);
}

// Returns `times` copies of `items`, a string or a vector.
template <typename Items>
Items repeated(const Items& items, std::size_t times, Budget& budget) {
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(items.size() * sizeof(items[0]), times, &bytes)) bytes = SIZE_MAX;
  budget.memory(bytes);
  Items result;
  for (std::size_t i = 0; !items.empty() && i < times; ++i) result.insert(result.end(), items.begin(), items.end());
  return result;
}

Value repeat(const Value& value, std::int64_t count, Budget& budget) {
  const auto times = static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
  if (const std::string* text = as_text(value)) {
    const std::string result = repeated(*text, times, budget);
    return is_markup(value) ? make_markup(result, budget) : Value(std::make_shared<const std::string>(result));
  }
  const Sequence& sequence = *as_sequence(value);
  return make_sequence(repeated(sequence.items, times, budget), budget, sequence.kind);
}

bool is_repeatable(const Value& value) {
  const Sequence* sequence = as_sequence(value);
  return as_text(value) != nullptr || (sequence != nullptr && sequence->kind <= Sequence::kTuple);
}

// Returns where a slice begins or ends in `size` items, if it goes forwards or backwards.
std::int64_t bound(const Value& value, std::int64_t size, bool backwards, bool is_start) {
  if (is_none(value)) return is_start == backwards ? (backwards ? size - 1 : size) : (backwards ? -1 : 0);
  const auto given = as_integer(value);
  if (!given) wrong_type("a slice", "an integer", value);
  const std::int64_t low = backwards ? -1 : 0, high = backwards ? size - 1 : size;
  return std::clamp(*given < 0 ? *given + size : *given, low, high);
}

// Returns the characters of a text.
std::vector<std::string_view> characters(std::string_view text, Budget& budget) {
  budget.work(8 * text.size());
  budget.memory(text.size() * sizeof(std::string_view));
  std::vector<std::string_view> result;
  for (std::size_t i = 0; i < text.size(); i += result.back().size()) {
    result.push_back(text.substr(i, character_size(text, i)));
  }
  return result;
}

// Calls visit(i) for the indices of a slice.
template <typename Visit>
void for_each_in_slice(std::size_t count, const Value& start, const Value& stop, const Value& step,
                       const Visit& visit) {
  const auto by = is_none(step) ? std::int64_t{1} : as_integer(step);
  if (!by) wrong_type("a slice's step", "an integer", step);
  if (*by == 0) fail("a slice: expected a step other than 0, got 0");
  const auto size = static_cast<std::int64_t>(count);
  const std::int64_t end = bound(stop, size, *by < 0, /*is_start=*/false);
  std::int64_t i = bound(start, size, *by < 0, /*is_start=*/true);
  while (*by > 0 ? i < end : i > end) {
    visit(static_cast<std::size_t>(i));
    if (__builtin_add_overflow(i, *by, &i)) break;
  }
}

Value text_at(const std::string& text, std::int64_t index, Budget& budget) {
  budget.work(text.size());
  if (index < 0) index += static_cast<std::int64_t>(count_characters(text, budget));
  std::size_t position = 0;
  for (; index > 0 && position < text.size(); --index) position += character_size(text, position);
  if (index != 0 || position >= text.size()) return undefined("the text has no such character");
  return make_text(text.substr(position, character_size(text, position)), budget);
}

}  // namespace

Value binary(Binary::Op op, const Value& a, const Value& b, Budget& budget) {
  if (const auto x = as_integer(a), y = as_integer(b); x && y) return integer_arithmetic(op, *x, *y);
  if (const auto x = as_number(a), y = as_number(b); x && y) return float_arithmetic(op, *x, *y);
  if (op == Binary::kMultiply) {
    if (const auto count = as_integer(b); count && is_repeatable(a)) return repeat(a, *count, budget);
    if (const auto count = as_integer(a); count && is_repeatable(b)) return repeat(b, *count, budget);
  }
  if (const std::string* format = as_text(a); format && op == Binary::kModulo) return percent(a, *format, b, budget);
  if (op != Binary::kAdd) wrong_operands("numbers", a, b);
  if (const std::string* x = as_text(a), *y = as_text(b); x && y) {
    if (is_markup(a) || is_markup(b))
      return make_markup(escaped_unless_markup(a, budget) + escaped_unless_markup(b, budget), budget);
    TextBuilder out(budget);
    out.add(*x);
    out.add(*y);
    return out.value();
  }
  const Sequence *x = as_sequence(a), *y = as_sequence(b);
  if (!x || !y || x->kind != y->kind || !is_repeatable(a)) wrong_operands("two numbers, texts or lists to add", a, b);
  budget.memory((x->items.size() + y->items.size()) * sizeof(Value));
  std::vector<Value> items = x->items;
  items.insert(items.end(), y->items.begin(), y->items.end());
  return make_sequence(std::move(items), budget, x->kind);
}

Value percent(const Value& self, const std::string& format, const Value& values, Budget& budget) {
  if (!is_markup(self)) return make_text(format_percent(format, values, budget), budget);
  const auto safe = [&](const Value& value) {
    return as_text(value) ? make_markup(escaped_unless_markup(value, budget), budget) : value;
  };
  const Sequence* tuple = as_sequence(values);
  if (!tuple || tuple->kind != Sequence::kTuple)
    return make_markup(format_percent(format, safe(values), budget), budget);
  std::vector<Value> items;
  for (const Value& item : tuple->items) items.push_back(safe(item));
  const Value all = make_sequence(std::move(items), budget, Sequence::kTuple);
  return make_markup(format_percent(format, all, budget), budget);
}

Value negate(const Value& value) {
  if (const double* number = as<double>(value)) return -*number;
  const auto integer = as_integer(value);
  if (!integer) wrong_type("a sign", "a number", value);
  return integer_arithmetic(Binary::kSubtract, 0, *integer);
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (const std::string* text = as_text(container)) {
    const std::string* part = as_text(item);
    if (part == nullptr) wrong_type("'in' a text", "a text", item);
    return find(*text, *part, 0, budget) != std::string::npos;
  }
  if (const Dict* dict = as_dict(container)) {
    return dict->find(item, budget) != nullptr;
  }
  if (is_undefined(container)) return false;
  const Sequence* sequence = as_sequence(container);
  if (sequence == nullptr) wrong_type("'in'", "a text, a list or a dict", container);
  const bool used_up = sequence->kind == Sequence::kIterator;
  for (std::size_t i = sequence->used; i < sequence->items.size(); ++i) {
    if (used_up) sequence->used = i + 1;
    if (equals(sequence->items[i], item, budget)) return true;
  }
  return false;
}

bool compare(Comparison op, const Value& a, const Value& b, Budget& budget) {
  switch (op) {
    case Comparison::kEqual:
      return equals(a, b, budget);
    case Comparison::kNotEqual:
      return !equals(a, b, budget);
    case Comparison::kLess:
      return less(a, b, budget);
    case Comparison::kLessEqual:
      return less(a, b, budget) || equals(a, b, budget);
    case Comparison::kGreater:
      return less(b, a, budget);
    case Comparison::kGreaterEqual:
      return less(b, a, budget) || equals(a, b, budget);
    case Comparison::kIn:
      return contains(b, a, budget);
    case Comparison::kNotIn:
      return !contains(b, a, budget);
  }
  return false;
}

Value get_attribute(const Value& object, std::string_view name) {
  if (is_undefined(object)) wrong_type("an attribute", "a value", object);
  if (is_method(object, name)) return std::make_shared<const Method>(Method{object, std::string(name)});
  const Value* member = nullptr;
  if (const Dict* dict = as_dict(object)) {
    member = dict->find(name);
  } else if (Namespace* const* space = as<Namespace*>(object)) {
    const auto found = (*space)->members.find(name);
    if (found != (*space)->members.end()) member = &found->second;
  } else if (const auto* loop = as<std::shared_ptr<const LoopState>>(object)) {
    return loop_attribute(**loop, name);
  }
  return member != nullptr ? *member : undefined(fmt::format("the {} has no attribute '{}'", type_name(object), name));
}

Value get_item(const Value& object, const Value& index, Budget& budget) {
  if (is_undefined(object)) wrong_type("an item", "a value", object);
  const std::string* name = as_text(index);
  if (name != nullptr) {
    budget.work(name->size());
    const Dict* dict = as_dict(object);
    const Value* member = dict == nullptr ? nullptr : dict->find(*name);
    return member != nullptr ? *member : get_attribute(object, *name);
  }
  if (const Dict* dict = as_dict(object)) {
    const Value* member = dict->find(index, budget);
    if (member != nullptr) return *member;
  }
  const auto at = as_integer(index);
  if (const std::string* text = as_text(object); text && at) {
    const Value character = text_at(*text, *at, budget);
    const std::string* one = as_text(character);
    return one && is_markup(object) ? make_markup(*one, budget) : character;
  }
  const Sequence* sequence = as_sequence(object);
  if (sequence && sequence->kind <= Sequence::kRange && at) {
    const auto size = static_cast<std::int64_t>(sequence->items.size());
    const std::int64_t position = *at < 0 ? *at + size : *at;
    if (position >= 0 && position < size) return sequence->items[static_cast<std::size_t>(position)];
  }
  return undefined(fmt::format("the {} has no such item", type_name(object)));
}

Value get_slice(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget) {
  if (const std::string* text = as_text(object)) {
    const std::vector<std::string_view> all = characters(*text, budget);
    TextBuilder out(budget);
    for_each_in_slice(all.size(), start, stop, step, [&](std::size_t i) { out.add(all[i]); });
    return is_markup(object) ? make_markup(out.take(), budget) : out.value();
  }
  const Sequence* sequence = as_sequence(object);
  if (!sequence || sequence->kind > Sequence::kRange) wrong_type("a slice", "a text or a list", object);
  std::vector<Value> items;
  for_each_in_slice(sequence->items.size(), start, stop, step, [&](std::size_t i) {
    budget.memory(sizeof(Value));
    items.push_back(sequence->items[i]);
  });
  return make_sequence(std::move(items), budget, sequence->kind);
}

}  // namespace foe::jinja
