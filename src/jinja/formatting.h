// Python's two ways to format texts: "{} {name}".format(...) and "%s %d" % (...). Private to this folder.
#pragma once

#include "jinja/methods.h"

namespace foe::jinja {

// Returns str.format() as the sandbox has it: fields with attributes, items, conversions and format specifications of
// texts and numbers. Throws Error for what is malformed, and for what values do not allow.
std::string format_fields(std::string_view format, const Arguments& arguments, Budget& budget);

// Returns `format % values`: a tuple has a value for each conversion, a dict values by name; any other value is the
// only one.
std::string format_percent(std::string_view format, const Value& values, Budget& budget);

}  // namespace foe::jinja
