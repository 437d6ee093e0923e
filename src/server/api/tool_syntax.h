// How models write the calls of tools that they decide on: one row of a table for each way.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/api/tool_request.h"

namespace foe {

struct WrittenCall {
  std::string name;
  std::string arguments;  // JSON, as the model has written it
};

struct ToolSyntax {
  std::string_view name;  // as vLLM's --tool-call-parser has it
  // What the templates of models have that write so. Without it, only its name selects the row.
  std::string_view in_source = {};
  // The texts between which calls are. Without `end`, calls go to the next `begin`, or to the end of the answer, or
  // with `ends_itself` to the end of the JSON that comes next.
  std::string_view begin = {}, end = {};
  std::string_view also_begin = {};  // another text for `begin`
  bool ends_itself = false;
  bool needs_end = false;  // whether nothing but `end` shows that a call is whole
  std::string_view whole =
      {};  // without `begin`: what an answer begins with that is calls as a whole, unless with a marker
  // Texts that may be special tokens. They belong to the text, though other special tokens are left out.
  std::vector<std::string_view> markers = {};
  bool harmony = false;    // whether calls are messages of gpt-oss' format, which has a reader of its own
  bool short_ids = false;  // whether the templates refuse ids of calls that are not nine letters and digits
  // Returns the calls in what is between `begin` and `end`, or nothing if it is something else. Null with `harmony`.
  std::optional<std::vector<WrittenCall>> (*parse)(std::string_view text, const ToolUse& use) = nullptr;
  // With `whole`: whether a text may go on such that `parse` returns calls of it. Null if nobody can say that.
  bool (*may_begin)(std::string_view text) = nullptr;
};

// Returns the arguments of a call: `text` if it is an object, what is in it if it is a string with an object. Without
// any they are empty.
std::optional<std::string> arguments_in(std::string_view text);

// The rows. Of those whose `in_source` a template has, the first counts.
std::span<const ToolSyntax> tool_syntaxes();

// Returns the row with the name. "auto" stands for the one whose sign the source of a chat template has, which is null
// if there is none, and "none" for null. Throws Error for any other name.
const ToolSyntax* tool_syntax_for(std::string_view name, std::string_view template_source);

// Returns the names that tool_syntax_for() knows.
std::vector<std::string> tool_syntax_names();

}  // namespace foe
