#include "jinja/chat_template.h"

#include <filesystem>
#include <map>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text_file.h"
#include "jinja/evaluator.h"
#include "jinja/lexer.h"
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

constexpr const char* kDefault = "default";
constexpr const char* kToolUse = "tool_use";

// Returns the only template as the default, or several by their names.
std::map<std::string, std::string> templates_of(const JsonField& field) {
  std::map<std::string, std::string> templates;
  if (field.null()) return templates;
  if (!field.value.is_array()) return {{kDefault, field.string()}};
  for (std::size_t i = 0; i < field.array().size(); ++i)
    templates[field[i]["name"].string()] = field[i]["template"].string();
  if (!templates.contains(kDefault)) fail("{}: expected a template named 'default', got none", field.path);
  return templates;
}

// Where a template is about the parts of a message's content: it walks through them, and it asks what it has got.
struct PartsUse {
  bool walks = false, asks = false;
};

// Looks for {% for part in message.content %}, also by message['content'] and by a variable `content` that was set to
// it, and for tests of types. As vLLM's rule, it looks at the template and not at what it does.
PartsUse parts_use(std::string_view source) {
  using jinja::Token;
  const std::vector<Token> tokens = jinja::tokenize(source);
  const auto is = [&](std::size_t i, Token::Kind kind, std::string_view text) {
    return i < tokens.size() && tokens[i].is(kind, text);
  };
  const auto is_member = [&](std::size_t i) {
    const bool dot = is(i, Token::kOperator, ".") && is(i + 1, Token::kName, "content");
    return dot || (is(i, Token::kOperator, "[") && is(i + 1, Token::kString, "content"));
  };
  PartsUse use;
  bool is_set = false;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (is(i, Token::kName, "set") && is(i + 1, Token::kName, "content") && is(i + 2, Token::kOperator, "="))
      is_set |= is_member(i + 4);
    if (is(i, Token::kName, "for") && is(i + 2, Token::kName, "in"))
      use.walks |= is_member(i + 4) || (is_set && is(i + 3, Token::kName, "content"));
    if (is(i, Token::kName, "is"))
      for (const char* type : {"string", "iterable", "mapping", "sequence"})
        use.asks |= is(i + 1, Token::kName, type) || (is(i + 1, Token::kName, "not") && is(i + 2, Token::kName, type));
  }
  return use;
}

}  // namespace

struct ChatTemplate::Program {
  jinja::Block block;
  ordered_json special_tokens;
  std::string source;
  PartsUse parts;
};

ChatTemplate ChatTemplate::load(const std::string& model_dir, const std::string& template_path) {
  std::optional<std::string> source = template_path.empty()
                                          ? read_if_there(model_dir + "/chat_template.jinja", kMaxTemplateBytes)
                                          : read_text_file(template_path, kMaxTemplateBytes);
  const json config = is_gguf_path(model_dir) ? gguf_tokenizer_config(model_dir) : load_tokenizer_config(model_dir);
  ordered_json tokens;
  std::optional<std::string> tool_use;
  try {
    tokens = special_tokens(config);
    if (!source) {
      const auto templates = templates_of(JsonField{config, ""}["chat_template"]);
      if (templates.contains(kDefault)) source = templates.at(kDefault);
      if (templates.contains(kToolUse)) tool_use = templates.at(kToolUse);
    }
    if (template_path.empty())
      if (auto file = read_if_there(model_dir + "/additional_chat_templates/tool_use.jinja", kMaxTemplateBytes))
        tool_use = std::move(file);
  } catch (const Error& error) {
    fail("{}/tokenizer_config.json: {}", model_dir, error.what());
  }
  if (!source) return {};
  if (template_path.empty()) {
    ChatTemplate result = parse(*source, tokens);
    if (tool_use) result.with_tools_ = parse(*tool_use, tokens).program_;
    return result;
  }
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
    result.program_ = std::make_shared<const Program>(
        Program{jinja::parse_template(source), special_tokens, std::string(source), parts_use(source)});
  } catch (const Error& error) {
    fail("chat template, {}", error.what());
  }
  return result;
}

const ChatTemplate::Program& ChatTemplate::program_for(const ordered_json& variables) const {
  const bool tools = variables.is_object() && variables.contains("tools") && !variables["tools"].empty();
  return tools && with_tools_ ? *with_tools_ : *program_;
}

std::string ChatTemplate::source(bool with_tools) const {
  if (with_tools && with_tools_) return with_tools_->source;
  return program_ ? program_->source : "";
}

bool ChatTemplate::reads_parts(const ordered_json& variables) const {
  return program_for(variables).parts.walks;
}

bool ChatTemplate::needs_parts(const ordered_json& variables) const {
  const PartsUse& use = program_for(variables).parts;
  return use.walks && !use.asks;
}

std::string ChatTemplate::render(const ordered_json& messages) const {
  return render(messages, nullptr);
}

std::string ChatTemplate::render(const ordered_json& messages, const ordered_json& variables,
                                 const ChatTemplateOptions& options) const {
  if (!present()) fail("the model has no chat template");
  if (!variables.is_null() && !variables.is_object())
    fail("chat template: expected an object of variables, got {}", variables.type_name());
  const Program& program = program_for(variables);
  ordered_json all = program.special_tokens;
  all["tools"] = all["documents"] = nullptr;
  if (variables.is_object()) all.update(variables);
  all["messages"] = messages;
  all["add_generation_prompt"] = options.add_generation_prompt;
  try {
    return jinja::evaluate(program.block, all, options.now.value_or(std::time(nullptr)));
  } catch (const Error& error) {
    fail("chat template, {}", error.what());
  }
}

}  // namespace foe
