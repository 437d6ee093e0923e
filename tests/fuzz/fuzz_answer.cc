// An answer of any text is read the same however it was cut, its calls are those of tools, their arguments are objects,
// and all else is reasoning or content. The first byte chooses how the model writes calls, the second one where the
// text is cut, the third one how and from where on the model writes its reasoning.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/strict_json.h"
#include "server/api/answer_reader.h"
#include "server/api/tool_syntax.h"
#include "text/utf8.h"

namespace {

foe::AnswerPart read(const foe::ToolUse& tools, const foe::ReasoningUse& reasoning, std::string_view text,
                     std::size_t size) {
  const auto reader = foe::make_answer_reader(tools, reasoning);
  foe::AnswerPart answer;
  if (!reader) return {.content = std::string(text)};
  for (std::size_t at = 0; at < text.size(); at += size) append(answer, reader->push(text.substr(at, size)));
  append(answer, reader->finish());
  for (const foe::TextSpan& span : reader->reasoning_spans())
    FOE_CHECK(span.begin <= span.end && (span.end == text.npos || span.end <= text.size()), "{} to {}", span.begin,
              span.end);
  return answer;
}

// The row of a table that a number chooses; null for one number.
template <typename Row>
const Row* chosen(std::span<const Row> rows, std::size_t number) {
  number %= rows.size() + 1;
  return number < rows.size() ? &rows[number] : nullptr;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  foe::ToolUse use{.choice = foe::ToolChoice::kAuto, .names = {"f", "g"}};
  use.syntax = chosen(foe::tool_syntaxes(), data[0]);
  use.strings.emplace("f", "a");
  const foe::ReasoningUse reasoning{chosen(foe::reasoning_syntaxes(), data[2] / 6),
                                    static_cast<foe::ReasoningStart>(data[2] % 3), data[2] / 3 % 2 == 0};
  std::string text;
  foe::append_lossy_utf8(text, std::string(reinterpret_cast<const char*>(data) + 3, size - 3), true);
  const foe::AnswerPart whole = read(use, reasoning, text, text.size() + 1);
  const foe::AnswerPart pieces = read(use, reasoning, text, 1 + data[1] % 16);
  FOE_CHECK(whole.reasoning == pieces.reasoning, "'{}' and '{}'", whole.reasoning, pieces.reasoning);
  FOE_CHECK(whole.content == pieces.content, "'{}' and '{}'", whole.content, pieces.content);
  FOE_CHECK(whole.calls.size() == pieces.calls.size(), "{} and {}", whole.calls.size(), pieces.calls.size());
  const bool reasons =
      (reasoning.syntax && reasoning.start != foe::ReasoningStart::kNowhere) || (use.syntax && use.syntax->harmony);
  FOE_CHECK(reasons || whole.reasoning.empty(), "'{}'", whole.reasoning);
  const bool marks = reasoning.syntax && !reasoning.syntax->content_begins.empty();
  FOE_CHECK(reasons || marks || !whole.calls.empty() || whole.content == text, "'{}' of '{}'", whole.content, text);
  for (std::size_t i = 0; i < whole.calls.size(); ++i) {
    const foe::ToolCallPiece& call = whole.calls[i];
    FOE_CHECK(call.name == pieces.calls[i].name && call.index == i, "{} {}", call.name, call.index);
    FOE_CHECK(call.arguments == pieces.calls[i].arguments, "{}", call.arguments);
    FOE_CHECK(std::ranges::find(use.names, call.name) != use.names.end(), "{}", call.name);
    FOE_CHECK(foe::parse_ordered_json(call.arguments, "arguments").is_object(), "{}", call.arguments);
  }
  return 0;
}
