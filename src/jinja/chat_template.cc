#include "jinja/chat_template.h"

#include <filesystem>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "jinja/evaluator.h"
#include "jinja/parser.h"
#include "text/json_fields.h"
#include "text/utf8.h"

namespace foe {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;
constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 26;  // some are large because of added tokens
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

// Returns the contents of a file, or nothing if it does not exist.
std::optional<std::string> read_if_there(const std::string& path, std::size_t max_bytes) {
  std::error_code status;
  if (!std::filesystem::exists(path, status) && !status) return std::nullopt;
  return read_text_file(path, max_bytes);
}

// Returns the special tokens that the config has, each given as a string or as {"content": ...}.
ordered_json special_tokens(const JsonField& config) {
  ordered_json tokens = ordered_json::object();
  for (const char* name : kSpecialTokens) {
    const JsonField token = config[name];
    if (token.null()) continue;
    tokens[name] = token.value.is_object() ? token["content"].string() : token.string();
  }
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
  const std::string config_path = model_dir + "/tokenizer_config.json";
  std::optional<std::string> source = template_path.empty()
                                          ? read_if_there(model_dir + "/chat_template.jinja", kMaxTemplateBytes)
                                          : read_text_file(template_path, kMaxTemplateBytes);
  ordered_json tokens;
  if (const auto text = read_if_there(config_path, kMaxConfigBytes)) {
    const json config = parse_strict_json(*text, config_path);
    try {
      const JsonField fields{config, ""};
      tokens = special_tokens(fields);
      if (!source) source = template_of(fields["chat_template"]);
    } catch (const Error& error) {
      fail("{}: {}", config_path, error.what());
    }
  }
  return source ? parse(*source, tokens) : ChatTemplate();
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
