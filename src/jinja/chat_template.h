// Runs chat templates: the Jinja programs in model folders that write a conversation as one text.
//
// The language is what the templates of real models use, with the meaning that it has in transformers: Jinja 3 with
// trim_blocks, lstrip_blocks, loop controls and an immutable sandbox. Its statements are if, for (with filter, else and
// recursive), set, macro, call, filter, with, raw, break, continue and generation. Anything else throws Error, which
// names it. Known differences: integers have 64 bits; dicts have only strings and integers as keys; a loop's filter
// runs before its first iteration; macros and recursive loops cannot be called behind the block that they are defined
// in.
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
  std::optional<std::time_t> now = std::nullopt;  // the time of strftime_now, which is local; by default the present
};

// Immutable and cheap to copy; any thread may render. Limits stop a hostile template after a fraction of a second, 64
// MiB of strings and lists, or 16 MiB of output.
class ChatTemplate {
 public:
  ChatTemplate() = default;  // no template: present() is false

  // Loads the template of a model folder: chat_template.jinja or `chat_template` in tokenizer_config.json (a string, or
  // a list of {name, template} with one named "default"), and the special tokens of tokenizer_config.json; or those of
  // a GGUF file. A template named "tool_use", of that list or additional_chat_templates/tool_use.jinja, takes the place
  // of the other where there are tools. If there is no template, present() is false. `template_path`, unless empty, is
  // a file that replaces the model's templates. Throws Error, with the line of the template, if something is malformed.
  static ChatTemplate load(const std::string& model_dir, const std::string& template_path = "");
  // Parses a template. `special_tokens` is an object of strings, such as {"bos_token": "<s>"}, or null. Throws Error
  // with the line.
  static ChatTemplate parse(std::string_view source, const nlohmann::ordered_json& special_tokens);
  static ChatTemplate parse(std::string_view source);

  bool present() const { return program_ != nullptr; }
  // Whether the template walks through the parts of a message's content, {"type": "text", "text": ...}. If so, parts
  // are to be given as they are, otherwise as one text. `needs_parts`: it can do nothing else, so a text is to be given
  // as a part.
  bool reads_parts(const nlohmann::ordered_json& variables) const;
  bool needs_parts(const nlohmann::ordered_json& variables) const;
  // The text of the template, or of the one for chats with tools; empty if there is none.
  std::string source(bool with_tools = false) const;

  // Returns the prompt for `messages`, an array of objects. `variables`, an object or null, has further names for the
  // template: `tools` and `documents`, which are null by default, `enable_thinking` and so on. Members are printed in
  // the order in which the client sent them. Throws Error, with the line of the template, if the template raises an
  // exception (it refuses the conversation), uses something that is not supported, or exceeds a limit.
  std::string render(const nlohmann::ordered_json& messages, const nlohmann::ordered_json& variables,
                     const ChatTemplateOptions& options = {}) const;
  std::string render(const nlohmann::ordered_json& messages) const;

 private:
  struct Program;
  const Program& program_for(const nlohmann::ordered_json& variables) const;
  std::shared_ptr<const Program> program_, with_tools_;
};

}  // namespace foe
