#include "jinja/scope.h"

#include <algorithm>

#include "base/error.h"

namespace foe::jinja {

Value Scope::look_up(const std::string& name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    const auto found = scope->variables.find(name);
    if (found != scope->variables.end()) return found->second;
  }
  return undefined(fmt::format("'{}' is undefined", name));
}

void Scope::assign(const Target& target, const Value& value, Budget& budget) {
  if (!target.member.empty()) {
    const Value space = look_up(target.names[0]);
    Namespace* const* found = as<Namespace*>(space);
    if (found == nullptr) wrong_type(target.names[0], "a namespace to set a member of", space);
    (*found)->members[target.member] = value;
    return;
  }
  if (!target.unpack) {
    variables[target.names[0]] = value;
    return;
  }
  const std::vector<Value> items = iterate(value, budget);
  if (items.size() != target.names.size())
    fail("expected {} values for as many names, got {}", target.names.size(), items.size());
  for (std::size_t i = 0; i < items.size(); ++i) variables[target.names[i]] = items[i];
}

std::shared_ptr<Scope> living(const std::weak_ptr<Scope>& scope, std::string_view name) {
  std::shared_ptr<Scope> result = scope.lock();
  if (!result) fail("{}: expected a call inside the block where it is defined, got one behind it", name);
  return result;
}

Variables bind_macro(const Macro& macro, const Arguments& arguments, Budget& budget) {
  Variables variables;
  const std::vector<Value>& values = arguments.positional;
  const std::size_t count = std::min(values.size(), macro.parameters.size());
  for (std::size_t i = 0; i < count; ++i) variables[macro.parameters[i].first] = values[i];
  if (values.size() > count && !macro.takes_varargs)
    fail("{}: expected at most {} arguments, got {}", macro.name, count, values.size());
  Arguments rest;
  Value caller = undefined("expected a caller, as of a call block, got none");
  for (const auto& [name, value] : arguments.named) {
    const bool known = std::any_of(macro.parameters.begin(), macro.parameters.end(),
                                   [&name = name](const auto& parameter) { return parameter.first == name; });
    if (known && !variables.contains(name)) {
      variables[name] = value;
    } else if (macro.takes_caller && name == "caller") {
      caller = value;
    } else if (macro.takes_kwargs) {
      rest.named.emplace_back(name, value);
    } else if (known) {
      fail("{}: expected one value for '{}', got two", macro.name, name);
    } else {
      fail("{}: expected no argument of the name '{}'", macro.name, name);
    }
  }
  if (macro.takes_caller) variables["caller"] = std::move(caller);
  if (macro.takes_kwargs) variables["kwargs"] = make_dict(rest, budget);
  if (macro.takes_varargs)
    variables["varargs"] =
        make_sequence({values.begin() + static_cast<std::ptrdiff_t>(count), values.end()}, budget, Sequence::kTuple);
  return variables;
}

}  // namespace foe::jinja
