// An answer of any text is read the same however it was cut, its calls are those of tools, and their arguments are
// objects. The first byte chooses how the model writes calls, the second one where the text is cut.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/strict_json.h"
#include "server/api/tool_calls.h"
#include "server/api/tool_syntax.h"
#include "text/utf8.h"

namespace {

struct Read {
  std::string content;
  std::vector<foe::ToolCallPiece> calls;
};

Read read(const foe::ToolUse& use, std::string_view text, std::size_t size) {
  const auto reader = foe::make_tool_call_reader(use);
  Read result;
  const auto add = [&](foe::AnswerPart part) {
    result.content += part.content;
    foe::append_calls(result.calls, std::move(part.calls));
  };
  for (std::size_t at = 0; at < text.size(); at += size) add(reader->push(text.substr(at, size)));
  add(reader->finish());
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  foe::ToolUse use{.choice = foe::ToolChoice::kAuto, .names = {"f", "g"}};
  use.syntax = &foe::tool_syntaxes()[data[0] % foe::tool_syntaxes().size()];
  use.strings.emplace("f", "a");
  std::string text;
  foe::append_lossy_utf8(text, std::string(reinterpret_cast<const char*>(data) + 2, size - 2), true);
  const Read whole = read(use, text, text.size() + 1), pieces = read(use, text, 1 + data[1] % 16);
  FOE_CHECK(whole.content == pieces.content, "'{}' and '{}'", whole.content, pieces.content);
  FOE_CHECK(whole.calls.size() == pieces.calls.size(), "{} and {}", whole.calls.size(), pieces.calls.size());
  FOE_CHECK(!whole.calls.empty() || whole.content == text, "'{}' of '{}'", whole.content, text);
  for (std::size_t i = 0; i < whole.calls.size(); ++i) {
    const foe::ToolCallPiece& call = whole.calls[i];
    FOE_CHECK(call.arguments == pieces.calls[i].arguments, "{}", call.arguments);
    FOE_CHECK(std::ranges::find(use.names, call.name) != use.names.end(), "{}", call.name);
    FOE_CHECK(foe::parse_ordered_json(call.arguments, "arguments").is_object(), "{}", call.arguments);
  }
  return 0;
}
