#include "server/api/other_api.h"

#include <algorithm>
#include <utility>

#include "base/strict_json.h"
#include "server/api/known_fields.h"
#include "server/api/request_fields.h"

namespace foe {

using json = nlohmann::ordered_json;

ApiError renamed(const ApiError& error, std::span<const FieldName> names) {
  const auto name = std::ranges::find(names, error.param(), &FieldName::chat);
  if (name == names.end()) return error;
  const std::string here(name->here), prefix = error.param() + ":", message = error.what();
  return {error.status(), here, message.starts_with(prefix) ? here + message.substr(prefix.size() - 1) : message};
}

GenerationRequest read_as_chat(const json& chat, const ServedModel& model, Api api, std::span<const FieldName> names) {
  try {
    GenerationRequest request = read_chat_request(chat, model);
    check_size(request, model);
    request.api = api;
    return request;
  } catch (const ApiError& error) {
    throw renamed(error, names);
  }
}

void move_chat_fields(Api api, json& object, json& chat, std::initializer_list<std::string_view> others) {
  const auto own = fields_of(api);
  for (auto& [name, value] : object.get_ref<json::object_t&>()) {
    const bool is_own = std::ranges::find(own, name, &KnownField::name) != own.end();
    if (!is_own || std::ranges::find(others, name) != others.end()) chat[name] = std::move(value);
  }
}

const json& member(const std::string& field, const json& object, const char* name, json::value_t type) {
  const json* value = find_field(object, name);
  if (!value || value->type() != type)
    refuse(field, "expected {} of the type {}, got {}", name, json(type).type_name(), excerpt(object));
  return *value;
}

const std::string& text_member(const std::string& field, const json& object, const char* name) {
  return member(field, object, name, json::value_t::string).get_ref<const std::string&>();
}

void check_tool_is_plain(const json& tool) {
  if (read_bool(tool, "defer_loading", false)) refuse("tools", "expected defer_loading = false, got true");
  if (const json* callers = find_field(tool, "allowed_callers"); callers && *callers != json::array({"direct"}))
    refuse("tools", "expected the allowed caller direct, got {}", excerpt(*callers));
}

void set_template_variable(json& chat, const char* name, const json& value) {
  json& variables = chat["chat_template_kwargs"];
  if (variables.is_null()) variables = json::object();
  if (!variables.is_object()) refuse("chat_template_kwargs", "expected an object, got {}", excerpt(variables));
  if (!find_field(variables, name)) variables[name] = value;
}

}  // namespace foe
