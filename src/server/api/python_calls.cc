#include "server/api/python_calls.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include <fmt/core.h>

#include "server/api/json_scanner.h"
#include "server/api/stop_strings.h"

namespace foe {
namespace {

constexpr int kMaxPythonDepth = 32;  // as of any JSON that clients and models write

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

// Writes what it reads as JSON, without a check of what numbers and code points there are: the JSON's parser has one.
// Functions return false for what is something else.
class PythonReader {
 public:
  explicit PythonReader(std::string_view text) : text_(text) {}

  bool read_calls(std::vector<WrittenCall>& calls) {
    if (!take('[')) return false;
    do {
      if (next() == ']' && !calls.empty()) break;
      if (!read_call(calls.emplace_back())) return false;
    } while (take(','));
    if (!take(']')) return false;
    next();
    return text_.empty();
  }

  // Whether read_calls() returned false only because the text ends too early.
  bool ran_out() const { return ran_out_ || text_.empty(); }

 private:
  char next() { return next_character(text_); }
  bool take(char c) { return take_character(text_, c); }

  std::string_view take_while(auto is_part) {
    next();
    const auto end = std::find_if_not(text_.begin(), text_.end(), is_part);
    const std::string_view taken = text_.substr(0, static_cast<std::size_t>(end - text_.begin()));
    text_.remove_prefix(taken.size());
    return taken;
  }

  bool read_call(WrittenCall& call) {
    call.name = take_while(is_name_character);
    if (call.name.empty() || !take('(')) return false;
    call.arguments = "{";
    do {
      if (next() == ')') break;
      const std::string_view key = take_while(is_name_character);
      if (key.empty() || !take('=')) return false;
      call.arguments += fmt::format("{}\"{}\": ", call.arguments.size() > 1 ? ", " : "", key);
      if (!read_value(call.arguments, 0)) return false;
    } while (take(','));
    call.arguments += '}';
    return take(')');
  }

  bool read_value(std::string& out, int depth) {
    if (depth == kMaxPythonDepth) return false;
    switch (next()) {
      case '"':
      case '\'':
        return read_string(out);
      case '[':
        return read_items(out, ']', depth);
      case '{':
        return read_items(out, '}', depth);
      default:
        return read_word(out);
    }
  }

  // Reads a list or a dict, whose brackets are those of JSON.
  bool read_items(std::string& out, char end, int depth) {
    out += text_.front();
    text_.remove_prefix(1);
    bool first = true;
    do {
      if (next() == end) break;
      if (!std::exchange(first, false)) out += ", ";
      if (end == '}') {
        if ((next() != '"' && next() != '\'') || !read_string(out) || !take(':')) return false;
        out += ": ";
      }
      if (!read_value(out, depth + 1)) return false;
    } while (take(','));
    out += end;
    return take(end);
  }

  bool read_string(std::string& out) {
    const char quote = text_.front();
    out += '"';
    std::size_t i = 1;
    while (i < text_.size() && text_[i] != quote) {
      const char c = text_[i++];
      if (c == '\\') {
        if (!read_escape(i, out)) return false;
      } else if (c == '"' || static_cast<unsigned char>(c) < ' ') {
        out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
      } else {
        out += c;
      }
    }
    if (i >= text_.size()) return run_out();
    out += '"';
    text_.remove_prefix(i + 1);
    return true;
  }

  // Reads what comes behind a backslash at text_[i].
  bool read_escape(std::size_t& i, std::string& out) {
    constexpr std::string_view kSame = "\\\"nrtbf", kHex = "0123456789abcdefABCDEF";
    constexpr std::array<std::pair<char, std::size_t>, 3> kNumbers = {{{'x', 2}, {'u', 4}, {'U', 8}}};
    if (i == text_.size()) return run_out();
    const char c = text_[i++];
    if (c == '\n') return true;  // the line goes on
    for (const auto& [letter, digits] : kNumbers) {
      if (c != letter) continue;
      const std::string_view number = text_.substr(i, digits);
      if (number.find_first_not_of(kHex) != number.npos) return false;
      if (number.size() < digits) return run_out();
      i += digits;
      return append_code_point(static_cast<std::uint32_t>(std::stoul(std::string(number), nullptr, 16)), out);
    }
    if (c == 'N' || (c >= '0' && c <= '9')) return false;  // a character by its name, or its number in octal
    if (kSame.find(c) != kSame.npos)
      out += {'\\', c};
    else if (c == '\'')
      out += c;
    else if (c == 'a' || c == 'v')
      out += c == 'a' ? "\\u0007" : "\\u000b";
    else
      out += {'\\', '\\', c};  // Python keeps the backslash of what is no escape
    return true;
  }

  static bool append_code_point(std::uint32_t code, std::string& out) {
    if (code > 0x10ffff) return false;
    if (code > 0xffff) {
      out += fmt::format("\\u{:04x}", 0xd800 + ((code - 0x10000) >> 10));
      code = 0xdc00 + ((code - 0x10000) & 0x3ff);
    }
    out += fmt::format("\\u{:04x}", code);
    return true;
  }

  // Reads a number or a name.
  bool read_word(std::string& out) {
    constexpr std::array<std::pair<std::string_view, const char*>, 6> kNames = {{{"True", "true"},
                                                                                 {"False", "false"},
                                                                                 {"None", "null"},
                                                                                 {"true", "true"},
                                                                                 {"false", "false"},
                                                                                 {"null", "null"}}};
    const std::string_view word = take_while([](char c) { return is_name_character(c) || c == '.' || c == '+'; });
    for (const auto& [name, value] : kNames) {
      if (word != name) continue;
      out += value;
      return true;
    }
    if (word.empty() || word.find_first_not_of("0123456789+-.eE_") != word.npos) return false;
    append_number(word, out);
    return true;
  }

  // JSON has no sign + and no underscores, and digits before and behind a point.
  static void append_number(std::string_view word, std::string& out) {
    if (word.starts_with('+')) word.remove_prefix(1);
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    for (std::size_t i = 0; i < word.size(); ++i) {
      const bool is_point = word[i] == '.';
      if (is_point && (i == 0 || !is_digit(word[i - 1]))) out += '0';
      if (word[i] != '_') out += word[i];
      if (is_point && (i + 1 == word.size() || !is_digit(word[i + 1]))) out += '0';
    }
  }

  bool run_out() {
    ran_out_ = true;
    return false;
  }

  std::string_view text_;
  bool ran_out_ = false;
};

constexpr std::string_view kPythonEnd = "<|python_end|>";

// Returns the text without the markers in front of it.
std::string_view without_begin(std::string_view text) {
  text = trim(text);
  for (const std::string_view begin : {"<|python_start|>", "<|python_tag|>"})
    if (text.starts_with(begin)) text = trim(text.substr(begin.size()));
  return text;
}

}  // namespace

bool may_begin_python_calls(std::string_view text) {
  text = without_begin(text);
  if (!text.starts_with('[')) return true;
  text.remove_suffix(text.ends_with(kPythonEnd) ? kPythonEnd.size() : overlap(text, kPythonEnd));
  std::vector<WrittenCall> calls;
  PythonReader reader(text);
  return reader.read_calls(calls) || reader.ran_out();
}

std::optional<std::vector<WrittenCall>> python_calls(std::string_view text, const ToolUse&) {
  text = without_begin(text);
  if (text.ends_with(kPythonEnd)) text.remove_suffix(kPythonEnd.size());
  std::vector<WrittenCall> calls;
  if (!PythonReader(text).read_calls(calls)) return std::nullopt;
  for (const WrittenCall& call : calls)
    if (!arguments_in(call.arguments)) return std::nullopt;  // a name may be there twice
  return calls;
}

}  // namespace foe
