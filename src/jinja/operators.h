// Python's operators and Jinja's subscripts. All throw Error for types that they do not take, and if the budget is
// exceeded. Private to this folder.
#pragma once

#include "jinja/ast.h"

namespace foe::jinja {

// All operators except kAnd and kOr, which may not evaluate both sides. Throws Error for integers beyond 64 bits.
Value binary(Binary::Op op, const Value& a, const Value& b, Budget& budget);
Value negate(const Value& value);
bool compare(Comparison op, const Value& a, const Value& b, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);

// x.name: looks for a method before a member, like Python. Returns undefined if there is neither.
Value get_attribute(const Value& object, std::string_view name);
// x[index]: looks for a member before a method.
Value get_item(const Value& object, const Value& index, Budget& budget);
// x[start:stop:step] of a text or a list. A bound that is none counts as left out.
Value get_slice(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget);

// Returns `format % values`, escaping the texts if `self`, the format as a value, is markup.
Value percent(const Value& self, const std::string& format, const Value& values, Budget& budget);

}  // namespace foe::jinja
