// What the readers of other APIs' requests share. They write a request as the same chat in OpenAI's form, which is then
// read and checked as any chat. Private to this folder's .cc files.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "server/api/generation_request.h"
#include "server/http/api_error.h"

namespace foe {

struct FieldName {
  std::string_view chat, here;
};

// Returns the error with the name that its field has in the API.
ApiError renamed(const ApiError& error, std::span<const FieldName> names);

// Reads the chat that a request was written as.
GenerationRequest read_as_chat(const nlohmann::ordered_json& chat, const ServedModel& model, Api api,
                               std::span<const FieldName> names);

// Moves the fields that mean the same in a chat from `object` to `chat`: the shared ones that the API has no entry of
// its own for, and `others`.
void move_chat_fields(Api api, nlohmann::ordered_json& object, nlohmann::ordered_json& chat,
                      std::initializer_list<std::string_view> others);

// Return a member of a field's object. Throw ApiError 400, which names the field, if it is absent or of another type.
const nlohmann::ordered_json& member(const std::string& field, const nlohmann::ordered_json& object, const char* name,
                                     nlohmann::ordered_json::value_t type);
const std::string& text_member(const std::string& field, const nlohmann::ordered_json& object, const char* name);

// Refuses a tool that somebody else than the model is to call, or that is to be hidden at first.
void check_tool_is_plain(const nlohmann::ordered_json& tool);

// Sets a variable of the chat template, unless the request has it in chat_template_kwargs.
void set_template_variable(nlohmann::ordered_json& chat, const char* name, const nlohmann::ordered_json& value);

}  // namespace foe
