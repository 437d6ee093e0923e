#include "eval/text_rules.h"

#include <utf8proc.h>

#include "text/utf8.h"

namespace foe {
namespace {

// Python's str.isspace(): also the four separators of ASCII.
bool is_python_space(char32_t code) {
  return is_space(code) || (code >= 0x1c && code <= 0x1f);
}

// Returns where the last character of a text that is not empty begins.
std::size_t begin_of_last(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  return begin;
}

using CaseRule = utf8proc_int32_t (*)(utf8proc_int32_t);

// Appends the characters of `text`, the first of them by one rule and the others by another; null leaves them.
std::string change_case(std::string_view text, CaseRule first, CaseRule others) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = read_utf8(text, at);
    const CaseRule rule = at == 0 ? first : others;
    append_utf8(out, rule ? static_cast<char32_t>(rule(static_cast<utf8proc_int32_t>(step.code))) : step.code);
    at += step.size;
  }
  return out;
}

}  // namespace

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = read_utf8(text, 0);
    if (!is_python_space(step.code)) break;
    text.remove_prefix(step.size);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    const std::size_t begin = begin_of_last(text);
    if (!is_python_space(read_utf8(text, begin).code)) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::string_view strip(std::string_view text) {
  return strip_right(strip_left(text));
}

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

std::string_view without_last_character(std::string_view text) {
  return text.empty() ? text : text.substr(0, begin_of_last(text));
}

std::string capitalise(std::string_view text) {
  return change_case(text, utf8proc_totitle, utf8proc_tolower);
}

std::string lower_first(std::string_view text) {
  return change_case(text, utf8proc_tolower, nullptr);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (std::size_t found; (found = text.find(from)) != text.npos; text.remove_prefix(found + from.size()))
    out.append(text.substr(0, found)).append(to);
  return out.append(text);
}

std::string remove_brackets(std::string_view text) {
  std::string out;
  for (std::size_t open; (open = text.find('[')) != text.npos;) {
    const std::size_t close = text.find_first_of("]\n", open);
    const bool pair = close != text.npos && text[close] == ']';
    out.append(text.substr(0, pair ? open : open + 1));
    text.remove_prefix(pair ? close + 1 : open + 1);
  }
  return out.append(text);
}

}  // namespace foe
