// Chat templates: the Jinja programs in model folders that write a conversation as one text.
//
// The language is what the templates of real models use, and means what it means to transformers: Jinja 3 with
// trim_blocks, lstrip_blocks, loop controls and an immutable sandbox. Statements: if, for (with filter and else; not
// recursive), set, macro (outside of loops and macros), break, continue, generation. All else is an Error that names
// it. Known to differ: case is mapped character by character; integers have 64 bits; dicts have only strings as keys;
// `safe` and `escape` give plain strings; a loop's filter runs before its first iteration.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace foe {

struct ChatTemplateOptions {
  bool add_generation_prompt = true;
  std::optional<std::time_t> now = std::nullopt;  // what strftime_now tells, in local time; the present unless given
};

// Immutable and cheap to copy; any thread may render. A template that is hostile costs at most a fraction of a second,
// 64 MiB of strings and lists, and 16 MiB of output.
class ChatTemplate {
 public:
  ChatTemplate() = default;  // not present

  // Of a model folder: chat_template.jinja or tokenizer_config.json's `chat_template` (a string, or a list of
  // {name, template} with one named "default"), and the special tokens of tokenizer_config.json. A folder without them
  // has no template. `template_path`, unless empty, is a file to take instead of the model's template. Throws Error for
  // what is malformed, with the template's line.
  static ChatTemplate load(const std::string& model_dir, const std::string& template_path = "");
  // `special_tokens`: an object of strings, {"bos_token": "<s>"}, or null.
  static ChatTemplate parse(std::string_view source, const nlohmann::ordered_json& special_tokens);
  static ChatTemplate parse(std::string_view source);

  bool present() const { return program_ != nullptr; }

  // The prompt for `messages`, an array of objects. `variables`, an object or null, has more names for the template:
  // `tools` and `documents`, which are null unless given, `enable_thinking` and so on. Members are printed in the order
  // in which the client sent them. Throws Error with the template's line: what the template itself
  // raised (a conversation it refuses), what it uses that is not supported, or which limit it is over.
  std::string render(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& variables,
                     const ChatTemplateOptions& options = {}) const;
  std::string render(const nlohmann::ordered_json& messages) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace foe
