#include "grammar/rule_reader.h"

#include <algorithm>

#include "text/hex.h"
#include "text/utf8.h"

namespace foe {
namespace {

bool begins_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

bool RuleReader::accept(std::string_view word) {
  if (!starts_with(word)) return false;
  at_ += word.size();
  skip_blanks();
  return true;
}

void RuleReader::skip_blanks() {
  while (!done()) {
    const bool comment = next() == '#' || (lark_ && starts_with("//"));
    if (comment) {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (std::string_view(" \t\r\n").find(next()) != std::string_view::npos) {
      ++at_;
    } else {
      return;
    }
  }
}

std::string_view RuleReader::text_from(std::size_t place) const {
  const std::string_view text = text_.substr(place, at_ - place);
  return text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
}

std::string_view RuleReader::name() {
  const std::size_t begin = at_;
  if (!begins_name(next())) return {};
  const auto goes_on = [&](char c) { return begins_name(c) || is_digit(c) || c == '-' || (!lark_ && c == '.'); };
  while (!done() && goes_on(next())) ++at_;
  const std::string_view result = text_.substr(begin, at_ - begin);
  skip_blanks();
  return result;
}

std::uint32_t RuleReader::number(std::uint32_t most) {
  const std::size_t begin = at_;
  std::uint64_t value = 0;
  for (; is_digit(next()); ++at_)
    value = std::min<std::uint64_t>(value * 10 + static_cast<unsigned>(next() - '0'), most + 1ULL);
  if (at_ == begin) bad("a number");
  if (value > most) bad_at(begin, fmt::format("a number of at most {}", most));
  return static_cast<std::uint32_t>(value);
}

std::u32string RuleReader::quoted() {
  const std::size_t begin = at_;
  const char quote = text_[at_++];
  std::u32string result;
  while (!done() && next() != quote && next() != '\n') result.push_back(character());
  if (next() != quote) bad_at(begin, "a text that ends with its quote in the same line");
  ++at_;
  return result;
}

CodePoints RuleReader::character_class() {
  const std::size_t begin = at_++;
  const bool negated = next() == '^';
  if (negated) ++at_;
  CodePoints result;
  while (!done() && next() != ']') {
    const std::size_t place = at_;
    const char32_t low = character();
    char32_t high = low;
    if (next() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
      ++at_;
      high = character();
    }
    if (high < low) bad_at(place, "a range in ascending order");
    result.emplace_back(low, high);
  }
  if (done()) bad_at(begin, "a class that ends with ]");
  ++at_;
  return complement(negated ? std::move(result) : complement(std::move(result)));
}

char32_t RuleReader::character() {
  const std::size_t begin = at_;
  if (next() != '\\') {
    const Utf8Step step = read_utf8(text_, at_);
    at_ += step.size;
    return step.code;
  }
  const char letter = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
  at_ += 2;
  const int digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
  if (digits > 0) {
    char32_t code = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const int value = done() ? -1 : hex_digit(next());
      if (value < 0) bad_at(begin, fmt::format("{} hexadecimal digits behind \\{}", digits, letter));
      code = code * 16 + static_cast<char32_t>(value);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) bad_at(begin, "an escape of a character of Unicode");
    return code;
  }
  constexpr std::string_view kLetters = "nrtfvabe0", kCodes = "\n\r\t\f\v\a\b\x1b";
  if (letter == '0') return 0;
  const std::size_t known = letter == '\0' ? kLetters.npos : kLetters.find(letter);
  if (known != kLetters.npos) return static_cast<char32_t>(kCodes[known]);
  const bool itself =
      letter != '\0' && std::string_view("\\\"'[]^-/.?*+(){}|$~` ").find(letter) != std::string_view::npos;
  if (!itself) {
    at_ = std::min(at_, text_.size());
    bad_at(begin, "an escape as \\n, \\\", \\\\, \\xHH or \\uHHHH");
  }
  return static_cast<char32_t>(letter);
}

std::string_view RuleReader::regex() {
  const std::size_t begin = ++at_;
  bool in_class = false;
  for (; !done() && next() != '\n' && (in_class || next() != '/'); ++at_) {
    if (next() == '\\') ++at_;
    if (done()) break;
    in_class = next() == '[' || (in_class && next() != ']');
  }
  if (next() != '/') bad_at(begin - 1, "a regular expression that ends with / in the same line");
  return text_.substr(begin, at_++ - begin);
}

std::string RuleReader::where(std::size_t place) const {
  const std::string_view before = text_.substr(0, place);
  const std::size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  const auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
  const auto column = std::count_if(before.begin() + static_cast<std::ptrdiff_t>(line_begin), before.end(),
                                    [&](char c) { return !continues(c); });
  return fmt::format("line {}, column {}: ", std::count(before.begin(), before.end(), '\n') + 1, column + 1);
}

void RuleReader::bad_at(std::size_t place, std::string_view expected) const {
  if (place >= text_.size()) fail("{}expected {}, got the end of the grammar", where(text_.size()), expected);
  std::string excerpt;
  const std::string_view line = text_.substr(place, std::min(text_.find('\n', place), text_.size()) - place);
  append_lossy_utf8(excerpt, line.substr(0, 16), /*last=*/true);
  fail("{}expected {}, got '{}'", where(place), expected, excerpt);
}

}  // namespace foe
