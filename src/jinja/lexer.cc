#include "jinja/lexer.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "jinja/strings.h"
#include "text/utf8.h"

namespace foe::jinja {
namespace {

bool is_name_start(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_';
}
bool is_digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c));
}

std::string one_kind_of_newline(std::string_view source) {
  std::string result;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      result += source[i];
    }
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(one_kind_of_newline(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) {
      const std::size_t tag = find_tag();
      text_until(tag);
      if (tag >= source_.size()) break;
      const char kind = source_[tag + 1];
      position_ = tag + (has_sign(tag + 2) ? 3 : 2);
      if (kind == '#') {
        skip_comment();
      } else if (const std::size_t end = kind == '%' ? end_of_word("raw", position_) : 0) {
        raw(end);
      } else {
        add(kind == '{' ? Token::kOutputBegin : Token::kBlockBegin, "");
        inside_tag(kind == '{');
      }
    }
    add(Token::kEnd, "");
    return std::move(tokens_);
  }

 private:
  char at(std::size_t position) const { return position < source_.size() ? source_[position] : '\0'; }
  bool has_sign(std::size_t position) const { return at(position) == '-' || at(position) == '+'; }
  bool looking_at(std::string_view text) const { return source_.compare(position_, text.size(), text) == 0; }
  [[noreturn]] void refuse(std::string_view what) const { fail("line {}: {}", line_, what); }

  // Appends a token, and advances line_ to the line of position_.
  void add(Token::Kind kind, std::string text) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(counted_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(position_), '\n'));
    counted_ = position_;
    tokens_.push_back({kind, std::move(text), line_});
  }

  std::size_t find_tag() const {
    for (std::size_t i = source_.find('{', position_); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (at(i + 1) == '{' || at(i + 1) == '%' || at(i + 1) == '#') return i;
    }
    return source_.size();
  }

  // Appends the text before a tag, without the white space that the tag strips.
  void text_until(std::size_t tag) {
    std::string_view text = std::string_view(source_).substr(position_, tag - position_);
    if (at(tag + 2) == '-' && tag < source_.size()) {
      while (!text.empty() && space_before(text) > 0) text.remove_suffix(space_before(text));
    } else if (tag < source_.size() && at(tag + 2) != '+' && at(tag + 1) != '{') {
      std::string_view rest = text;
      while (!rest.empty() && rest.back() != '\n' && space_before(rest) > 0) rest.remove_suffix(space_before(rest));
      if (rest.empty() ? at_line_start() : rest.back() == '\n') text = rest;
    }
    if (!text.empty()) add(Token::kText, std::string(text));
  }
  bool at_line_start() const { return position_ == 0 || source_[position_ - 1] == '\n'; }

  // Returns the size in bytes of the white-space character at the end of `text`, or 0.
  static std::size_t space_before(std::string_view text) {
    for (std::size_t size = 1; size <= std::min<std::size_t>(3, text.size()); ++size) {
      const Utf8Step step = read_utf8(text, text.size() - size);
      if (step.kind == Utf8Step::kValid && step.size == size) return is_python_space(step.code) ? size : 0;
    }
    return 0;
  }

  void skip_spaces() {
    while (position_ < source_.size()) {
      const Utf8Step step = read_utf8(source_, position_);
      if (step.kind != Utf8Step::kValid || !is_python_space(step.code)) break;
      position_ += step.size;
    }
  }

  void skip_comment() {
    const std::size_t end = source_.find("#}", position_);
    if (end == std::string::npos) refuse("expected #} after {#, got the end of the template");
    const char sign = end > position_ ? source_[end - 1] : '\0';
    position_ = end + 2;
    after_tag(sign, /*trim=*/true);
  }

  // Returns where a tag that has only this word ends, or 0 if it is another tag. `position` is behind its sign.
  std::size_t end_of_word(std::string_view word, std::size_t position) const {
    const auto spaces = [&] {
      while (at(position) != '\0' && std::isspace(static_cast<unsigned char>(at(position)))) ++position;
    };
    spaces();
    if (source_.compare(position, word.size(), word) != 0) return 0;
    position += word.size();
    spaces();
    if (has_sign(position)) ++position;
    return source_.compare(position, 2, "%}") == 0 ? position + 2 : 0;
  }

  // Takes the text up to {% endraw %} as it is. `begin` is behind {% raw %}, which does not trim a line end.
  void raw(std::size_t begin) {
    position_ = begin;
    after_tag(source_[begin - 3], /*trim=*/false);
    for (std::size_t tag = source_.find("{%", position_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const std::size_t end = end_of_word("endraw", tag + (has_sign(tag + 2) ? 3 : 2));
      if (end == 0) continue;
      text_until(tag);
      position_ = end;
      after_tag(source_[end - 3], /*trim=*/true);
      return;
    }
    refuse("expected {% endraw %} after {% raw %}, got the end of the template");
  }

  void after_tag(char sign, bool trim) {
    if (sign == '-') {
      skip_spaces();
    } else if (sign != '+' && trim && at(position_) == '\n') {
      ++position_;
    }
  }

  bool end_of_tag(bool output) {
    const char sign = looking_at("-") || (!output && looking_at("+")) ? source_[position_] : '\0';
    if (source_.compare(position_ + (sign != '\0' ? 1 : 0), 2, output ? "}}" : "%}") != 0) return false;
    position_ += sign != '\0' ? 3 : 2;
    add(output ? Token::kOutputEnd : Token::kBlockEnd, "");
    after_tag(sign, /*trim=*/!output);
    return true;
  }

  void inside_tag(bool output) {
    std::string open;  // the open brackets: inside them "}}" is two closing brackets
    for (;;) {
      skip_spaces();
      if (position_ >= source_.size()) {
        refuse(fmt::format("expected {}, got the end of the template", output ? "}}" : "%}"));
      }
      if (open.empty() && end_of_tag(output)) return;
      const char c = source_[position_];
      if (is_digit(c)) {
        number();
      } else if (is_name_start(c)) {
        name();
      } else if (c == '\'' || c == '"') {
        string(c);
      } else {
        operator_sign(open);
      }
    }
  }

  void name() {
    const std::size_t begin = position_;
    while (is_name_start(at(position_)) || is_digit(at(position_))) ++position_;
    add(Token::kName, source_.substr(begin, position_ - begin));
  }

  void digits() {
    while (is_digit(at(position_)) || (at(position_) == '_' && is_digit(at(position_ + 1)))) ++position_;
  }

  void number() {
    const std::size_t begin = position_;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';  // in x.0.1 there is no fraction
    digits();
    Token::Kind kind = Token::kInteger;
    if (!after_dot && at(position_) == '.' && is_digit(at(position_ + 1))) {
      ++position_;
      digits();
      kind = Token::kFloat;
    }
    const std::size_t exponent = position_ + (has_sign(position_ + 1) ? 2 : 1);
    if (!after_dot && (at(position_) == 'e' || at(position_) == 'E') && is_digit(at(exponent))) {
      position_ = exponent;
      digits();
      kind = Token::kFloat;
    }
    std::string text = source_.substr(begin, position_ - begin);
    std::erase(text, '_');
    if (is_name_start(at(position_)) ||
        (kind == Token::kInteger && text[0] == '0' && text.find_first_not_of('0') != std::string::npos)) {
      refuse(fmt::format("expected a decimal number, got '{}'", source_.substr(begin, position_ + 1 - begin)));
    }
    add(kind, std::move(text));
  }

  void operator_sign(std::string& open) {
    constexpr std::string_view kSigns[] = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "[",
                                           "]",  "(",  ")",  "{",  "}",  "<",  ">", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view sign : kSigns) {
      if (!looking_at(sign)) continue;
      if (const auto opening = std::string_view("([{").find(sign); opening != std::string_view::npos) {
        open += ")]}"[opening];
      } else if (sign == ")" || sign == "]" || sign == "}") {
        if (!open.ends_with(sign)) refuse(fmt::format("expected an expression, got an unbalanced '{}'", sign));
        open.pop_back();
      }
      position_ += sign.size();
      return add(Token::kOperator, std::string(sign));
    }
    refuse(
        fmt::format("expected an expression, got '{}'", source_.substr(position_, character_size(source_, position_))));
  }

  void string(char quote) {
    std::string text;
    for (++position_; at(position_) != quote || position_ >= source_.size();) {
      if (position_ >= source_.size()) refuse("expected a quote that ends the string, got the end of the template");
      if (source_[position_] == '\\') {
        escape(text);
      } else {
        text += source_[position_++];
      }
    }
    ++position_;
    add(Token::kString, std::move(text));
  }

  // Decodes Python's escapes, except \N{...}. Unknown escapes are kept.
  void escape(std::string& text) {
    constexpr std::string_view kLetters = "\\'\"abfnrtv", kCharacters = "\\'\"\a\b\f\n\r\t\v";
    const char c = at(position_ + 1);
    position_ += 2;
    if (const auto known = kLetters.find(c); known != std::string_view::npos) {
      text += kCharacters[known];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      code_point(text, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
    } else if (c >= '0' && c <= '7') {
      --position_;
      std::size_t size = 1;
      while (size < 3 && at(position_ + size) >= '0' && at(position_ + size) <= '7') ++size;
      code_point(text, size, 8);
    } else if (c == 'N') {
      refuse("the escape \\N is not supported");
    } else if (c != '\n') {
      text += {'\\', c};
    }
  }

  void code_point(std::string& text, std::size_t size, int base) {
    const std::string digits_text = source_.substr(position_, size);
    const bool good =
        digits_text.size() == size && digits_text.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
    const unsigned long code = good ? std::stoul(digits_text, nullptr, base) : 0;
    if (!good || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
      refuse(fmt::format("expected a code point of {} digits in the string, got '{}'", size, digits_text));
    }
    append_utf8(text, static_cast<char32_t>(code));
    position_ += size;
  }

  std::string source_;
  std::size_t position_ = 0;
  std::size_t counted_ = 0;  // line_ counts the newlines up to here
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

bool TokenStream::accept(Token::Kind kind, std::string_view text) {
  if (!peek().is(kind, text)) return false;
  ++position_;
  return true;
}

void TokenStream::expect_sign(std::string_view sign) {
  if (!accept_sign(sign)) refuse(fmt::format("'{}'", sign));
}

void TokenStream::expect(Token::Kind kind, std::string_view what) {
  if (peek().kind != kind) refuse(what);
  next();
}

std::string TokenStream::expect_name(std::string_view what) {
  if (peek().kind != Token::kName) refuse(what);
  return next().text;
}

void TokenStream::refuse(std::string_view expected) const {
  const Token& token = peek();
  constexpr std::string_view kKinds[] = {"text", "{{", "}}", "{%", "%}", "", "", "", "", "", "the end of the template"};
  const std::string_view found = kKinds[token.kind].empty() ? token.text : kKinds[token.kind];
  fail("line {}: expected {}, got '{}'", token.line, expected, found.substr(0, 60));
}

}  // namespace foe::jinja
