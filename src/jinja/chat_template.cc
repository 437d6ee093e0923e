#include "jinja/chat_template.h"

#include <filesystem>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text_file.h"
#include "jinja/evaluator.h"
#include "jinja/parser.h"
#include "text/json_fields.h"
#include "text/tokenizer_config.h"
#include "text/utf8.h"
#include "weights/gguf/gguf_chat.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;

// Returns the contents of a file, or nothing if it does not exist.
std::optional<std::string> read_if_there(const std::string& path, std::size_t max_bytes) {
  std::error_code status;
  if (!std::filesystem::exists(path, status) && !status) return std::nullopt;
  return read_text_file(path, max_bytes);
}

ordered_json special_tokens(const json& config) {
  ordered_json tokens = ordered_json::object();
  for (const char* name : kSpecialTokenNames)
    if (const auto text = special_token_text(config, name)) tokens[name] = *text;
  return tokens;
}

// Returns the only template, or of several the one named "default".
std::optional<std::string> template_of(const JsonField& field) {
  if (field.null()) return std::nullopt;
  if (!field.value.is_array()) return field.string();
  for (std::size_t i = 0; i < field.array().size(); ++i) {
    if (field[i]["name"].string() == "default") return field[i]["template"].string();
  }
  fail("{}: expected a template named 'default', got none", field.path);
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Block block;
  ordered_json special_tokens;
};

ChatTemplate ChatTemplate::load(const std::string& model_dir, const std::string& template_path) {
  std::optional<std::string> source = template_path.empty()
                                          ? read_if_there(model_dir + "/chat_template.jinja", kMaxTemplateBytes)
                                          : read_text_file(template_path, kMaxTemplateBytes);
  const json config = is_gguf_path(model_dir) ? gguf_tokenizer_config(model_dir) : load_tokenizer_config(model_dir);
  ordered_json tokens;
  try {
    tokens = special_tokens(config);
    if (!source) source = template_of(JsonField{config, ""}["chat_template"]);
  } catch (const Error& error) {
    fail("{}/tokenizer_config.json: {}", model_dir, error.what());
  }
  if (!source) return {};
  if (template_path.empty()) return parse(*source, tokens);
  try {
    return parse(*source, tokens);
  } catch (const Error& error) {
    fail("{}: {}", template_path, error.what());
  }
}

ChatTemplate ChatTemplate::parse(std::string_view source) {
  return parse(source, nullptr);
}

ChatTemplate ChatTemplate::parse(std::string_view source, const ordered_json& special_tokens) {
  if (source.size() > kMaxTemplateBytes) {
    fail("chat template: expected at most {} bytes, got {}", kMaxTemplateBytes, source.size());
  }
  check_utf8(source, "chat template");
  ChatTemplate result;
  try {
    result.program_ = std::make_shared<const Program>(Program{jinja::parse_template(source), special_tokens});
  } catch (const Error& error) {
    fail("chat template, {}", error.what());
  }
  return result;
}

std::string ChatTemplate::render(const ordered_json& messages) const {
  return render(messages, nullptr);
}

std::string ChatTemplate::render(const ordered_json& messages, const ordered_json& variables,
                                 const ChatTemplateOptions& options) const {
  if (!present()) fail("the model has no chat template");
  if (!variables.is_null() && !variables.is_object())
    fail("chat template: expected an object of variables, got {}", variables.type_name());
  ordered_json all = program_->special_tokens;
  all["tools"] = all["documents"] = nullptr;
  if (variables.is_object()) all.update(variables);
  all["messages"] = messages;
  all["add_generation_prompt"] = options.add_generation_prompt;
  try {
    return jinja::evaluate(program_->block, all, options.now.value_or(std::time(nullptr)));
  } catch (const Error& error) {
    fail("chat template, {}", error.what());
  }
}

}  // namespace foe
