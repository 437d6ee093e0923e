#include "server/api/gemma_calls.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/strict_json.h"
#include "server/api/json_scanner.h"
#include "server/api/json_text.h"

namespace foe {
namespace {

constexpr int kMaxGemmaDepth = 32;  // as of any JSON that clients and models write

bool is_scalar(std::string_view word) {
  try {
    return parse_ordered_json(word, "").is_primitive();
  } catch (const Error&) {
    return false;
  }
}

// Writes what it reads as JSON. Functions return false for what is something else.
class GemmaReader {
 public:
  GemmaReader(std::string_view text, const ToolUse& use) : text_(text), use_(use) {}

  bool read_call(WrittenCall& call) {
    constexpr std::string_view kCall = "call:";
    const std::size_t brace = text_.find('{');
    if (!text_.starts_with(kCall) || brace == text_.npos) return false;
    call.name = trim(text_.substr(kCall.size(), brace - kCall.size()));
    text_.remove_prefix(brace);
    name_ = call.name;
    return read_group(call.arguments, 0) && next() == '\0';
  }

 private:
  char next() { return next_character(text_); }
  bool take(char c) { return take_character(text_, c); }

  // Reads an object or a list, whose brackets are those of JSON.
  bool read_group(std::string& out, int depth) {
    if (depth == kMaxGemmaDepth) return false;
    const char end = text_.front() == '{' ? '}' : ']';
    out += text_.front();
    text_.remove_prefix(1);
    bool first = true;
    do {
      if (next() == end && first) break;
      if (!std::exchange(first, false)) out += ", ";
      bool is_string = false;
      if (end == '}') {
        std::string key;
        if (!read_key(key)) return false;
        out += json_text(key) + ": ";
        is_string = depth == 0 && use_.strings.contains({name_, key});
      }
      if (!read_value(out, is_string, depth)) return false;
    } while (take(','));
    out += end;
    return take(end);
  }

  bool read_quoted(std::string& text) {
    const std::size_t end = text_.find(kGemmaQuote, kGemmaQuote.size());
    if (end == text_.npos) return false;
    text = text_.substr(kGemmaQuote.size(), end - kGemmaQuote.size());
    text_.remove_prefix(end + kGemmaQuote.size());
    return true;
  }

  bool read_key(std::string& key) {
    next();
    if (text_.starts_with(kGemmaQuote)) {
      if (!read_quoted(key)) return false;
    } else {
      key = take_up_to(":,{}[]");
    }
    return !key.empty() && take(':');
  }

  bool read_value(std::string& out, bool is_string, int depth) {
    if (next() == '{' || next() == '[') return read_group(out, depth + 1);
    std::string text;
    if (text_.starts_with(kGemmaQuote)) {
      if (!read_quoted(text)) return false;
      out += json_text(text);
      return true;
    }
    text = take_up_to(",{}[]");
    out += !is_string && is_scalar(text) ? text : json_text(text);
    return !text.empty();
  }

  std::string_view take_up_to(std::string_view ends) {
    const std::string_view taken = text_.substr(0, text_.find_first_of(ends));
    text_.remove_prefix(taken.size());
    return trim(taken);
  }

  std::string_view text_;
  const ToolUse& use_;
  std::string name_;
};

}  // namespace

std::optional<std::vector<WrittenCall>> gemma_calls(std::string_view text, const ToolUse& use) {
  WrittenCall call;
  if (!GemmaReader(trim(text), use).read_call(call)) return std::nullopt;
  if (!arguments_in(call.arguments)) return std::nullopt;  // a name may be there twice
  return std::vector{call};
}

}  // namespace foe
