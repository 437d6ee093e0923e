#include "server/api/reasoning.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/strict_json.h"
#include "server/api/json_scanner.h"

namespace foe {

std::span<const ReasoningSyntax> reasoning_syntaxes() {
  static constexpr std::string_view kBegin = "<think>", kEnd = "</think>";
  // Cohere's Command.
  static constexpr std::string_view kThink[] = {"<|START_THINKING|>", "<|END_THINKING|>"};
  static constexpr std::string_view kText[] = {"<|START_TEXT|>", "<|END_TEXT|>"};
  static constexpr std::string_view kResponse[] = {"<|START_RESPONSE|>", "<|END_RESPONSE|>"};
  static const ReasoningSyntax kRows[] = {
      {.name = "openai_gptoss",
       .in_source = {"<|channel|>analysis"},
       .begin = "<|channel|>analysis<|message|>",
       .end = "<|channel|>final<|message|>",
       .harmony = true},
      {.name = "mistral", .in_source = {"[THINK]"}, .begin = "[THINK]", .end = "[/THINK]"},
      {.name = "seed_oss", .in_source = {"<seed:think>"}, .begin = "<seed:think>", .end = "</seed:think>"},
      {.name = "deepseek_r1", .in_source = {"<｜Assistant｜>", kEnd}, .begin = kBegin, .end = kEnd, .from_start = true},
      {.name = "minimax_m2", .in_source = {"]~b]", kEnd}, .begin = kBegin, .end = kEnd, .from_start = true},
      {.name = "cohere_command4",
       .in_source = {kThink[0], kText[0]},
       .begin = kThink[0],
       .end = kThink[1],
       .content_begins = {kText[0], kResponse[0]},
       .content_ends = {kText[1], kResponse[1]}},
      {.name = "cohere_command3",
       .in_source = {kThink[0]},
       .begin = kThink[0],
       .end = kThink[1],
       .content_begins = {kResponse[0]},
       .content_ends = {kResponse[1]}},
      {.name = "gemma4",
       .in_source = {"<|channel>thought"},
       .begin = "<|channel>thought",
       .end = "<channel|>",
       .markers = {"<|channel>"}},
      {.name = "granite",
       .in_source = {"Here is my thought process:"},
       .begin = "Here is my thought process:",
       .end = "Here is my response:",
       .also_begin = "Here's my thought process:",
       .also_end = "Here's my response:"},
      {.name = "hunyuan_a13b",
       .in_source = {"<tool_calls>[", kEnd},
       .begin = kBegin,
       .end = kEnd,
       .content_begins = {"<answer>"},
       .content_ends = {"</answer>"}},
      {.name = "ernie45",
       .in_source = {kBegin, "</response>"},
       .begin = kBegin,
       .end = kEnd,
       .content_begins = {"<response>"},
       .content_ends = {"</response>"}},
      {.name = "qwen3", .in_source = {kEnd}, .begin = kBegin, .end = kEnd},
      {.name = "deepseek_v3", .begin = kBegin, .end = kEnd},
      {.name = "glm45", .begin = kBegin, .end = kEnd},
      {.name = "glm47", .begin = kBegin, .end = kEnd},
      {.name = "holo2", .begin = kBegin, .end = kEnd},
      {.name = "kimi_k2", .begin = kBegin, .end = kEnd},
      {.name = "mimo", .begin = kBegin, .end = kEnd},
      {.name = "nemotron_v3", .begin = kBegin, .end = kEnd},
      {.name = "olmo3", .begin = kBegin, .end = kEnd},
      {.name = "step3", .begin = kBegin, .end = kEnd, .from_start = true},
      {.name = "step3p5", .begin = kBegin, .end = kEnd, .from_start = true},
  };
  return kRows;
}

const ReasoningSyntax* reasoning_syntax_for(std::string_view name, std::string_view template_source) {
  if (name == "none") return nullptr;
  const auto shows = [&](std::string_view sign) { return template_source.find(sign) != template_source.npos; };
  for (const ReasoningSyntax& row : reasoning_syntaxes())
    if (name == "auto" ? !row.in_source.empty() && std::ranges::all_of(row.in_source, shows) : name == row.name)
      return &row;
  if (name == "auto") return nullptr;
  fail("expected one of {}, got {}", fmt::join(reasoning_syntax_names(), ", "), shorten(std::string(name)));
}

std::vector<std::string> reasoning_syntax_names() {
  std::vector<std::string> names = {"auto", "none"};
  for (const ReasoningSyntax& row : reasoning_syntaxes()) names.emplace_back(row.name);
  return names;
}

ReasoningStart reasoning_start(const ReasoningSyntax& syntax, std::string_view prompt, bool thinks) {
  const std::string_view text = prompt.substr(0, trimmed_size(prompt));
  const bool begun = text.ends_with(syntax.begin) || (!syntax.also_begin.empty() && text.ends_with(syntax.also_begin));
  if (begun) return ReasoningStart::kAtOnce;
  if (text.ends_with(syntax.end)) return ReasoningStart::kNowhere;
  return syntax.from_start && thinks ? ReasoningStart::kAtOnce : ReasoningStart::kAtMark;
}

ReasoningStart reasoning_start_within(const ReasoningSyntax& syntax, std::string_view content) {
  const std::size_t begin = content.rfind(syntax.begin);
  const bool open = begin != content.npos && content.find(syntax.end, begin) == content.npos;
  return open ? ReasoningStart::kAtOnce : ReasoningStart::kNowhere;
}

}  // namespace foe
