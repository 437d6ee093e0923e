// The variables of a running template. Private to this folder.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "jinja/ast.h"
#include "jinja/methods.h"

namespace foe::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

// The variables of a block, and the scope around it.
struct Scope {
  Variables variables;
  std::shared_ptr<Scope> parent;

  // Returns the variable of the innermost scope that has it, or undefined.
  Value look_up(const std::string& name) const;
  // Sets variables of this scope, or a member of a namespace. Throws Error if the value does not fit the target.
  void assign(const Target& target, const Value& value, Budget& budget);
};

// Returns the scope that a macro or a loop was defined in. Throws Error, with the name of what is called, if its block
// has ended.
std::shared_ptr<Scope> living(const std::weak_ptr<Scope>& scope, std::string_view name);

// Returns what a macro's variables are in a call, without its parameters that got no argument. Throws Error for an
// argument that it does not take.
Variables bind_macro(const Macro& macro, const Arguments& arguments, Budget& budget);

}  // namespace foe::jinja
