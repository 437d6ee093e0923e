#include "server/api/tool_request.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

constexpr std::size_t kMaxTools = 1024;
constexpr std::size_t kMaxNameBytes = 64;
constexpr std::string_view kNameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

const std::string& read_name(const json& function) {
  const json* name = find_field(function, "name");
  if (!name || !name->is_string()) refuse("tools", "expected functions with a name, got {}", excerpt(function));
  const std::string& text = name->get_ref<const std::string&>();
  if (text.empty() || text.size() > kMaxNameBytes || text.find_first_not_of(kNameCharacters) != text.npos)
    refuse("tools", "expected names of 1 to {} letters, digits, _ and -, got {}", kMaxNameBytes, excerpt(*name));
  return text;
}

// Returns the function of a tool, an element of the field `tools`.
const json& function_of(const json& tool) {
  const json* type = tool.is_object() ? find_field(tool, "type") : nullptr;
  const json* function = tool.is_object() ? find_field(tool, "function") : nullptr;
  if (!function || !function->is_object() || (type && *type != "function"))
    refuse("tools", "expected {}, got {}", R"({"type": "function", "function": {"name": ...}})", excerpt(tool));
  return *function;
}

// Notes which parameters of a tool are strings.
void note_strings(const json& function, ToolUse& use) {
  const json* schema = find_field(function, "parameters");
  const json* properties = schema ? find_field(*schema, "properties") : nullptr;
  if (!properties || !properties->is_object()) return;
  for (const auto& [name, property] : properties->items())
    if (property.is_object() && property.contains("type") && property["type"] == "string")
      use.strings.emplace(function.at("name"), name);
}

void read_tools(const json& object, ToolUse& use) {
  const json* tools = find_field(object, "tools");
  if (!tools) return;
  if (!tools->is_array()) refuse("tools", "expected a list, got {}", excerpt(*tools));
  if (tools->size() > kMaxTools) refuse("tools", "expected at most {} tools, got {}", kMaxTools, tools->size());
  std::vector<std::string>& names = use.names;
  for (const json& tool : *tools) {
    const json& function = function_of(tool);
    names.push_back(read_name(function));
    if (std::find(names.begin(), names.end() - 1, names.back()) != names.end() - 1)
      refuse("tools", "expected different names, got {} twice", names.back());
    if (const json* schema = find_field(function, "parameters"); schema && !schema->is_object())
      refuse("tools", "expected the parameters of {} to be a JSON schema, an object, got {}", names.back(),
             excerpt(*schema));
    if (const json* strict = find_field(function, "strict"); strict && !strict->is_boolean())
      refuse("tools", "expected strict to be true or false, got {}", excerpt(*strict));
    note_strings(function, use);
  }
}

// Returns the name in {"type": "function", "function": {"name": ...}}.
const std::string& chosen_name(const json& choice) {
  const json* type = choice.is_object() ? find_field(choice, "type") : nullptr;
  const json* function = choice.is_object() ? find_field(choice, "function") : nullptr;
  const json* name = function && function->is_object() ? find_field(*function, "name") : nullptr;
  if (!name || !name->is_string() || (type && *type != "function"))
    refuse("tool_choice", "expected none, auto, required, {} or {}, got {}",
           R"({"type": "function", "function": {"name": ...}})",
           R"({"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}})", excerpt(choice));
  return name->get_ref<const std::string&>();
}

// Returns the names that {"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}} lists, in the order
// of `names`, and sets whether one of these tools must be called.
std::vector<std::string> allowed_names(const json& choice, const std::vector<std::string>& names, bool& required) {
  const json* allowed = find_field(choice, "allowed_tools");
  const json* mode = allowed && allowed->is_object() ? find_field(*allowed, "mode") : nullptr;
  const json* tools = mode ? find_field(*allowed, "tools") : nullptr;
  if (!tools || !tools->is_array() || tools->empty() || (*mode != "auto" && *mode != "required"))
    refuse("tool_choice", "expected allowed_tools with the mode auto or required, and tools, got {}", excerpt(choice));
  required = *mode == "required";
  std::set<std::string> listed;
  for (const json& tool : *tools) {
    const std::string& name = chosen_name(tool);
    if (std::ranges::find(names, name) == names.end())
      refuse("tool_choice", "expected names of the tools, got {}", excerpt(name));
    listed.insert(name);
  }
  std::vector<std::string> result;
  std::ranges::copy_if(names, std::back_inserter(result),
                       [&](const std::string& name) { return listed.contains(name); });
  return result;
}

// Makes references within a schema refer to the same place of a larger one, which has the schema at `path`.
void move_references(json& schema, const std::string& path) {
  constexpr std::array<std::string_view, 3> kMapsOfSchemas = {"properties", "$defs", "definitions"};
  constexpr std::array<std::string_view, 5> kValues = {"enum", "const", "default", "examples", "example"};
  if (schema.is_array())
    for (json& item : schema) move_references(item, path);
  if (!schema.is_object()) return;
  for (auto& [name, value] : schema.get_ref<json::object_t&>()) {
    if (name == "$ref" && value.is_string()) {
      const std::string& reference = value.get_ref<const std::string&>();
      if (reference == "#" || reference.starts_with("#/")) value = path + reference.substr(1);
    } else if (std::ranges::find(kMapsOfSchemas, name) != kMapsOfSchemas.end() && value.is_object()) {
      for (auto& member : value.get_ref<json::object_t&>()) move_references(member.second, path);
    } else if (std::ranges::find(kValues, name) == kValues.end()) {
      move_references(value, path);
    }
  }
}

// Returns the schema of a tool's arguments, whose definitions are among `definitions` under the tool's name.
json arguments_schema(const json& tools, const std::string& name, json& definitions) {
  const auto tool = std::ranges::find_if(tools, [&](const json& t) { return function_of(t).at("name") == name; });
  const json* parameters = find_field(function_of(*tool), "parameters");
  const std::string path = "#/$defs/" + name;
  json& schema = definitions[name] =
      parameters ? *parameters : json{{"type", "object"}, {"properties", json::object()}};
  move_references(schema, path);
  return {{"allOf", {{{"type", "object"}}, {{"$ref", path}}}}};
}

}  // namespace

ToolUse read_tool_use(const json& object, const ToolSyntax* syntax) {
  ToolUse use{.choice = ToolChoice::kAuto, .syntax = syntax};
  read_tools(object, use);
  use.parallel = read_bool(object, "parallel_tool_calls", true);
  const json* choice = find_field(object, "tool_choice");
  if (use.names.empty()) {
    if (choice && *choice != "none" && *choice != "auto")
      refuse("tool_choice", "expected none or auto without tools, got {}", excerpt(*choice));
    return {};
  }
  if (!choice || *choice == "auto") return use;
  if (*choice == "none") return {};
  if (*choice == "required") {
    use.choice = ToolChoice::kRequired;
    return use;
  }
  if (const json* type = choice->is_object() ? find_field(*choice, "type") : nullptr;
      type && *type == "allowed_tools") {
    bool required = false;
    use.names = allowed_names(*choice, use.names, required);
    if (required) use.choice = ToolChoice::kRequired;
    return use;
  }
  const std::string& name = chosen_name(*choice);
  if (std::ranges::find(use.names, name) == use.names.end())
    refuse("tool_choice", "expected the name of one of the tools, got {}", excerpt(name));
  return {.choice = ToolChoice::kNamed, .names = {name}, .parallel = false, .syntax = syntax};
}

Constraint calls_constraint(const json& object, const ToolUse& use) {
  if (use.choice != ToolChoice::kRequired && use.choice != ToolChoice::kNamed) return {};
  const json& tools = object.at("tools");
  json schema, definitions = json::object();
  if (use.choice == ToolChoice::kNamed) {
    schema = arguments_schema(tools, use.names.front(), definitions);
  } else {
    json calls = json::array();
    for (const std::string& name : use.names)
      calls.push_back(
          {{"type", "object"},
           {"properties", {{"name", {{"const", name}}}, {"parameters", arguments_schema(tools, name, definitions)}}},
           {"required", {"name", "parameters"}},
           {"additionalProperties", false}});
    schema = {{"type", "array"}, {"minItems", 1}, {"items", {{"anyOf", std::move(calls)}}}};
    if (!use.parallel) schema["maxItems"] = 1;
  }
  schema["$defs"] = std::move(definitions);
  return {Constraint::Kind::kJsonSchema, schema.dump()};
}

}  // namespace foe
