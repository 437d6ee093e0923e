// Reads the tools of a chat, and which of them the answer must call.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/request.h"

namespace foe {

enum class ToolChoice {
  kNone,      // the answer is a text
  kAuto,      // the model decides
  kRequired,  // the answer is an array of calls, {"name": ..., "parameters": {...}}
  kNamed,     // the answer is the arguments of a call of one tool
};

struct ToolSyntax;

struct ToolUse {
  ToolChoice choice = ToolChoice::kNone;
  std::vector<std::string> names = {};                         // of the tools that may be called: of kNamed, one
  std::set<std::pair<std::string, std::string>> strings = {};  // tools, and their parameters of the type string
  bool parallel = true;                                        // whether the answer may have several calls
  const ToolSyntax* syntax = nullptr;  // how the model writes calls that it decides on; null: nobody knows
};

// Reads the fields tools, tool_choice and parallel_tool_calls. Throws ApiError 400 for tools that are not a list of
// functions with valid and different names, and for a choice that they do not have.
ToolUse read_tool_use(const nlohmann::ordered_json& object, const ToolSyntax* syntax = nullptr);

// Returns what the answer to a request with `use` must keep to, of kind kNone unless it must call a tool. Arguments are
// objects that satisfy the tool's schema, `parameters`; without one, they are empty.
Constraint calls_constraint(const nlohmann::ordered_json& object, const ToolUse& use);

}  // namespace foe
