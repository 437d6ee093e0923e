#include <cctype>

#include "base/error.h"
#include "tokenizer/regex.h"

namespace foe {
namespace {

// Unicode's White_Space and its complement, as members of a class. PCRE2's own \s also has U+180E.
constexpr std::string_view kSpaces =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr std::string_view kNotSpaces =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";

// Reads `source` from left to right and appends its translation to `result`.
class Translator {
 public:
  explicit Translator(std::string_view source) : source_(source) {}

  std::string run() {
    while (!done()) {
      switch (const char c = source_[position_]) {
        case '\\':
          escape(/*in_class=*/false);
          break;
        case '[':
          character_class();
          break;
        case '(':
          group();
          break;
        case '{':
          interval();
          break;
        default:
          result_.push_back(c), ++position_;
      }
    }
    return std::move(result_);
  }

 private:
  bool done() const { return position_ >= source_.size(); }
  char peek(std::size_t ahead = 0) const {
    return position_ + ahead < source_.size() ? source_[position_ + ahead] : '\0';
  }
  bool accept(std::string_view prefix) {
    if (!source_.substr(position_).starts_with(prefix)) return false;
    position_ += prefix.size();
    return true;
  }
  [[noreturn]] void unsupported(std::string_view what) const {
    fail("regex: {} at byte {} is not supported in a pre-tokenizer", what, position_);
  }

  void escape(bool in_class) {
    const char c = peek(1);
    if (c == 'p' || c == 'P') return property();
    if (c == 'x') return code_point();
    if (c == 's' || c == 'S') {
      const std::string_view members = c == 's' ? kSpaces : kNotSpaces;
      result_ += in_class ? std::string(members) : "[" + std::string(members) + "]";
    } else if (c == 'v') {
      result_ += "\\x{b}";  // in PCRE2, \v is any vertical space
    } else if (std::string_view("dDnrtf").find(c) != std::string_view::npos ||
               std::ispunct(static_cast<unsigned char>(c)) || c == ' ') {
      result_ += {'\\', c};
    } else {
      unsupported(fmt::format("the escape \\{}", c == '\0' ? ' ' : c));
    }
    position_ += 2;
  }

  // Reads \p{L}, \p{Lu}, \p{^L}, \P{L} or \p{Han}. PCRE2 takes the name of a script for its script extensions, a larger
  // set.
  void property() {
    const bool upper = peek(1) == 'P';
    const std::size_t close = source_.find('}', position_);
    if (peek(2) != '{' || close == std::string_view::npos) unsupported("\\p without {name}");
    std::string_view name = source_.substr(position_ + 3, close - position_ - 3);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    for (const char c : name) {
      if (!std::isalpha(static_cast<unsigned char>(c)) && c != '_') unsupported("this \\p{name}");
    }
    result_ += fmt::format("\\{}{{{}{}}}", upper != negated ? 'P' : 'p', name.size() > 2 ? "sc:" : "", name);
    position_ = close + 1;
  }

  // Reads \x41 or \x{1f600}. Two digits from 80 on are a byte in Oniguruma and a code point in PCRE2.
  void code_point() {
    const bool braces = peek(2) == '{';
    const std::size_t begin = position_ + (braces ? 3 : 2);
    const std::size_t end = braces ? source_.find('}', begin) : begin + 2;
    if (end > source_.size() || end == begin || end - begin > 8) unsupported("\\x without hexadecimal digits");
    const std::string_view digits = source_.substr(begin, end - begin);
    for (const char c : digits) {
      if (!std::isxdigit(static_cast<unsigned char>(c))) unsupported("\\x without hexadecimal digits");
    }
    if (!braces && digits[0] >= '8') unsupported("\\x with a byte above 7f");
    result_ += fmt::format("\\x{{{}}}", digits);
    position_ = end + (braces ? 1 : 0);
  }

  void character_class() {
    const std::size_t open = result_.size();
    const bool negated = accept("[^");
    if (!negated) ++position_;
    result_ += negated ? "[^" : "[";
    if (accept("]")) result_ += "\\]";
    while (peek() != ']') {
      if (done()) unsupported("a character class without its ]");
      if (peek() == '[') unsupported("a class inside a class");
      if (accept("&&")) return intersection(open, negated);
      if (peek() == '\\') {
        escape(/*in_class=*/true);
      } else {
        result_.push_back(source_[position_++]);
      }
    }
    result_.push_back(source_[position_++]);
  }

  // Reads the rest of [a-z&&[^x]], which PCRE2 does not have. `open` is where the class begins in the result.
  void intersection(std::size_t open, bool negated) {
    if (negated || peek() != '[') unsupported("this intersection of classes");
    const std::string first = result_.substr(open) + "]";
    result_.resize(open);
    result_ += "(?:(?=";
    character_class();
    if (!accept("]")) unsupported("an intersection that goes on");
    result_ += ")" + first + ")";
  }

  void group() {
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"}) {
      if (accept(opening)) {
        result_ += opening;
        return;
      }
    }
    if (peek(1) == '?' || peek(1) == '*') unsupported("this kind of group");
    // Nothing refers to captures here, and groups without a capture match faster.
    result_ += "(?:";
    ++position_;
  }

  // Reads {n}, {n,}, {n,m} and lazy {n,m}?. After an interval, + means "repeat" in Oniguruma and "possessive" in PCRE2;
  // {,m} and {n}? differ as well. A brace that does not begin an interval is a literal.
  void interval() {
    std::size_t i = 1;
    const auto digits = [&] {
      const std::size_t begin = i;
      while (std::isdigit(static_cast<unsigned char>(peek(i)))) ++i;
      return i - begin;
    };
    const bool lower = digits() > 0;
    const bool comma = peek(i) == ',';
    if (comma) ++i;
    const bool upper = comma && digits() > 0;
    if (peek(i) != '}' || (!lower && !upper)) {
      result_ += "\\{";
      ++position_;
      return;
    }
    if (!lower) unsupported("an interval without a lower bound");
    if (peek(i + 1) == '+') unsupported("a + after an interval");
    if (peek(i + 1) == '?' && !comma) unsupported("a ? after {n}");
    result_ += source_.substr(position_, i + 1);
    position_ += i + 1;
  }

  std::string_view source_;
  std::size_t position_ = 0;
  std::string result_;
};

}  // namespace

std::string to_pcre2_syntax(std::string_view pattern) {
  return Translator(pattern).run();
}

}  // namespace foe
