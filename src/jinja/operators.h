// Python's operators and Jinja's subscripts. Private to this folder.
#pragma once

#include "jinja/ast.h"

namespace foe::jinja {

// All but kAnd and kOr, which do not evaluate both sides. Integers beyond 64 bits are an Error.
Value binary(Binary::Op op, const Value& a, const Value& b, Budget& budget);
Value negate(const Value& value);
bool compare(Comparison op, const Value& a, const Value& b, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);

// x.name: a method before a member, as Python has it. What is not there is undefined.
Value get_attribute(const Value& object, std::string_view name);
// x[index]: a member before a method.
Value get_item(const Value& object, const Value& index, Budget& budget);
// Of a text or a list; bounds that are none are left out.
Value get_slice(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget);

}  // namespace foe::jinja
