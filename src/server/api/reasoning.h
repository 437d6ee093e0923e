// How models write their reasoning, which comes before the content of an answer: one row of a table for each way.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

struct ReasoningSyntax {
  std::string_view name;  // as vLLM's --reasoning-parser has it
  // What the templates of models have that write so, all of these texts. Without any, only its name selects the row.
  std::vector<std::string_view> in_source = {};
  std::string_view begin = {}, end = {};            // the texts between which the reasoning is
  std::string_view also_begin = {}, also_end = {};  // other texts for them
  // The texts between which the content behind the reasoning may be, and which are no part of it.
  std::vector<std::string_view> content_begins = {}, content_ends = {};
  // Tokens within `begin` that may be special. They belong to the text, as all of these texts do.
  std::vector<std::string_view> markers = {};
  bool harmony = false;     // the format of gpt-oss, which has a reader of its own
  bool from_start = false;  // an answer begins in its reasoning, unless the prompt has ended that
};

// Where the reasoning of an answer begins.
enum class ReasoningStart {
  kNowhere,  // it has none: all of the text is content
  kAtMark,   // behind `begin`, if the text begins with that; otherwise it has none
  kAtOnce,   // with the text, perhaps behind `begin`
};

struct ReasoningUse {
  const ReasoningSyntax* syntax = nullptr;  // null: nobody knows how the model writes it
  ReasoningStart start = ReasoningStart::kNowhere;
  bool include = true;  // whether the client wants to have it
};

// The rows. Of those that a template has all the signs of, the first counts.
std::span<const ReasoningSyntax> reasoning_syntaxes();

// Returns the row with the name. "auto" stands for the one whose signs the source of a chat template has, which is null
// if there is none, and "none" for null. Throws Error for any other name.
const ReasoningSyntax* reasoning_syntax_for(std::string_view name, std::string_view template_source);

// Returns the names that reasoning_syntax_for() knows.
std::vector<std::string> reasoning_syntax_names();

// Returns where reasoning begins behind a prompt, which may itself begin it, or end it at once as many templates do
// that are told enable_thinking = false. `thinks`: whether they are not told so.
ReasoningStart reasoning_start(const ReasoningSyntax& syntax, std::string_view prompt, bool thinks = true);

// Returns where it goes on in an answer that continues a message with this content.
ReasoningStart reasoning_start_within(const ReasoningSyntax& syntax, std::string_view content);

}  // namespace foe
