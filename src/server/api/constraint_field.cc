// Reads what the text of the answer must keep to: OpenAI's response_format, vLLM's structured_outputs, and the same
// rules as other servers and older clients write them. A choice of tools that must be called is such a rule, too.
#include <algorithm>
#include <optional>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/generation_request.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;
using Kind = Constraint::Kind;

// A constraint, and the field that it comes from.
struct Rule {
  std::string field;
  Constraint constraint = {};
};

// Returns the text of a schema, which some clients send as JSON and some as a string with JSON.
std::string schema_text(const std::string& field, const json& schema) {
  if (schema.is_string()) return schema.get<std::string>();
  if (!schema.is_object() && schema != true) refuse(field, "expected a JSON schema, got {}", excerpt(schema));
  return schema.dump();
}

std::string regex_text(const std::string& field, const json& regex) {
  if (!regex.is_string()) refuse(field, "expected a regular expression, a string, got {}", excerpt(regex));
  return regex.get<std::string>();
}

std::string choice_text(const std::string& field, const json& choice) {
  if (!choice.is_array()) refuse(field, "expected a list of texts, got {}", excerpt(choice));
  return choice.dump();
}

std::string grammar_text(const std::string& field, const json& grammar) {
  if (!grammar.is_string()) refuse(field, "expected a grammar, a string, got {}", excerpt(grammar));
  return grammar.get<std::string>();
}

std::optional<Rule> read_response_format(const json& format) {
  const std::string field = "response_format";
  if (!format.is_object()) refuse(field, "expected an object, got {}", excerpt(format));
  const json* type = find_field(format, "type");
  if (type && *type == "text") {
    require_members(field, format, {"type"});
    return {};
  }
  if (type && *type == "json_object") {
    require_members(field, format, {"type", "schema"});  // llama.cpp's clients put a schema here
    const json* schema = find_field(format, "schema");
    if (!schema) return Rule{field, {Kind::kJsonObject}};
    return Rule{field, {Kind::kJsonSchema, schema_text(field, *schema)}};
  }
  if (!type || *type != "json_schema")
    refuse(field, "expected a type of text, json_object or json_schema, got {}", type ? excerpt(*type) : "none");
  require_members(field, format, {"type", "json_schema"});
  const json* inner = find_field(format, "json_schema");
  const json* schema = inner && inner->is_object() ? find_field(*inner, "schema") : nullptr;
  if (!schema) refuse(field, "expected json_schema to be an object with a schema, got {}", excerpt(format));
  require_members(field, *inner, {"schema", "name", "strict", "description"});
  return Rule{field, {Kind::kJsonSchema, schema_text(field, *schema)}};
}

void read_structured_outputs(const json& outputs, std::vector<Rule>& rules) {
  const std::string field = "structured_outputs";
  if (!outputs.is_object()) refuse(field, "expected an object, got {}", excerpt(outputs));
  // A rule must be there. That there is none can be said by json_object: false.
  if (std::ranges::all_of(outputs, [](const json& value) { return value.is_null(); }))
    refuse(field, "expected a rule (json, json_object, regex, choice or grammar), got {}", excerpt(outputs));
  for (const auto& [name, value] : outputs.items()) {
    if (value.is_null() || (name == "json_object" && value == false)) continue;
    if (name == "json")
      rules.push_back({field, {Kind::kJsonSchema, schema_text(field, value)}});
    else if (name == "json_object" && value == true)
      rules.push_back({field, {Kind::kJsonObject}});
    else if (name == "regex")
      rules.push_back({field, {Kind::kRegex, regex_text(field, value)}});
    else if (name == "choice")
      rules.push_back({field, {Kind::kChoice, choice_text(field, value)}});
    else if (name == "grammar")
      rules.push_back({field, {Kind::kGrammar, grammar_text(field, value)}});
    else
      refuse(field, "expected json, json_object (true or false), regex, choice or grammar, got \"{}\": {}",
             shorten(name), excerpt(value));
  }
}

// Rank 0 compiles a rule again; a bad one is refused here, before it waits.
void compile(Rule& rule, const ServedModel& model) {
  rule.constraint.open_objects = model.open_objects;
  try {
    model.grammars->get(rule.constraint);
  } catch (const Error& error) {
    refuse(rule.field, "{}", error.what());
  }
}

}  // namespace

Constraint read_constraint(const json& object, const ToolUse& tools, const ServedModel& model) {
  std::vector<Rule> rules;
  if (auto calls = calls_constraint(object, tools); calls.kind != Kind::kNone)
    rules.push_back({"tools", std::move(calls)});
  const auto read = [&](const char* name, Kind kind, auto text) {
    if (const json* value = find_field(object, name)) rules.push_back({name, {kind, text(name, *value)}});
  };
  if (const json* format = find_field(object, "response_format"))
    if (auto rule = read_response_format(*format)) rules.push_back(std::move(*rule));
  if (const json* outputs = find_field(object, "structured_outputs")) read_structured_outputs(*outputs, rules);
  read("guided_json", Kind::kJsonSchema, schema_text);
  read("json_schema", Kind::kJsonSchema, schema_text);
  read("guided_regex", Kind::kRegex, regex_text);
  read("regex", Kind::kRegex, regex_text);
  read("guided_choice", Kind::kChoice, choice_text);
  for (const char* name : {"grammar", "guided_grammar", "ebnf"}) read(name, Kind::kGrammar, grammar_text);
  if (rules.empty()) return {};
  // Agents send the format of their last answer with each request, also where calls must come first: these have no
  // text.
  const bool only_calls = rules.size() == 2 && rules[0].field == "tools" && rules[1].field == "response_format";
  if (rules.size() > 1 && rules[0].field == "tools" && !only_calls)
    refuse("tool_choice", "expected none or auto beside {}, which is another rule for the text", rules[1].field);
  if (rules.size() > 1 && !only_calls)
    refuse(rules[1].field, "expected one rule for the text, got another one beside that of {}", rules[0].field);
  for (Rule& rule : rules) compile(rule, model);
  return rules[0].constraint;
}

}  // namespace foe
