// The terminals of Lark's module `common`, as its documentation lists them. Private to this folder.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace foe {

// Returns the terminal as a regular expression, if there is one of this name.
std::optional<std::string_view> lark_terminal(std::string_view name);
std::string lark_terminal_names();

}  // namespace foe
