#include "grammar/pattern_syntax.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "text/hex.h"
#include "text/utf8.h"

namespace foe {
namespace {

constexpr std::size_t kMaxPatternBytes = 4096;
constexpr int kMaxGroupDepth = 64;
constexpr std::uint32_t kMaxTimes = 10'000;

using Kind = PatternNode::Kind;

const CodePoints kDigits = {{'0', '9'}};
const CodePoints kWordCharacters = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kSpaces = {{0x09, 0x0d},     {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
                            {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
const CodePoints kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class PatternParser {
 public:
  explicit PatternParser(std::string_view text) : text_(text) {}

  PatternNode parse() {
    PatternNode result = alternatives();
    if (!done()) bad("a group that is opened before its )");
    return result;
  }

 private:
  bool done() const { return at_ == text_.size(); }
  bool starts_with(std::string_view prefix) const { return text_.substr(at_).starts_with(prefix); }
  bool accept(std::string_view prefix) {
    if (!starts_with(prefix)) return false;
    at_ += prefix.size();
    return true;
  }
  [[noreturn]] void bad(std::string_view expected) const {
    fail("at byte {}: expected {}, got '{}'", at_, expected, excerpt());
  }
  [[noreturn]] void unsupported(std::string_view what) const {
    fail("at byte {}: expected no {} (not supported), got '{}'", at_, what, excerpt());
  }
  std::string excerpt() const {
    std::string result;
    append_lossy_utf8(result, text_.substr(at_, 12), /*last=*/true);
    return result;
  }

  PatternNode alternatives() {
    if (++depth_ > kMaxGroupDepth) fail("expected groups nested at most {} deep, got more", kMaxGroupDepth);
    PatternNode result{.kind = Kind::kAlternatives};
    do {
      result.children.push_back(sequence());
    } while (accept("|"));
    --depth_;
    return result.children.size() == 1 ? std::move(result.children.front()) : std::move(result);
  }

  PatternNode sequence() {
    PatternNode result;
    while (!done() && !starts_with("|") && !starts_with(")")) result.children.push_back(repeated(term()));
    return result;
  }

  PatternNode term() {
    if (accept("^")) return {.kind = Kind::kBegin};
    if (accept("$")) return {.kind = Kind::kEnd};
    if (accept(".")) return {.kind = Kind::kCharacters, .characters = complement(kLineEnds)};
    if (starts_with("(")) return group();
    if (starts_with("[")) return {.kind = Kind::kCharacters, .characters = character_class()};
    if (starts_with("*") || starts_with("+") || starts_with("?") || interval(at_)) bad("something to repeat");
    return {.kind = Kind::kCharacters, .characters = character(/*in_class=*/false)};
  }

  PatternNode group() {
    if (starts_with("(?<") && !starts_with("(?<=") && !starts_with("(?<!")) {
      const std::size_t close = text_.find('>', at_);
      if (close == std::string_view::npos) bad("a > behind the name");
      at_ = close + 1;
    } else if (!accept("(?:")) {
      if (starts_with("(?")) unsupported("look-around or flags");
      accept("(");
    }
    PatternNode result = alternatives();
    if (!accept(")")) bad("a )");
    return result;
  }

  PatternNode repeated(PatternNode part) {
    CountRange times;
    if (accept("*")) {
      times = {0, kNoLimit};
    } else if (accept("+")) {
      times = {1, kNoLimit};
    } else if (accept("?")) {
      times = {0, 1};
    } else if (const auto found = interval(at_)) {
      times = found->first;
      if (times.min > times.max) bad("an interval in ascending order");
      at_ = found->second;
    } else {
      return part;
    }
    accept("?");  // a lazy repeat allows the same texts
    if (starts_with("*") || starts_with("+") || starts_with("?") || interval(at_)) bad("one repeat");
    PatternNode result{.kind = Kind::kRepeat, .times = times};
    result.children.push_back(std::move(part));
    return result;
  }

  // Reads {n}, {n,} or {n,m} at `at`, and returns it and where it ends. Any other brace is a character.
  std::optional<std::pair<CountRange, std::size_t>> interval(std::size_t at) const {
    const auto number = [&]() -> std::optional<std::uint32_t> {
      const std::size_t begin = at;
      std::uint32_t value = 0;
      for (; at < text_.size() && text_[at] >= '0' && text_[at] <= '9'; ++at) {
        value = std::min(value * 10 + static_cast<std::uint32_t>(text_[at] - '0'), kMaxTimes + 1);
      }
      if (value > kMaxTimes) fail("at byte {}: expected at most {} repeats, got more", begin, kMaxTimes);
      return at == begin ? std::nullopt : std::optional(value);
    };
    const auto next = [&](char c) { return at < text_.size() && text_[at] == c ? ++at : 0; };
    if (!next('{')) return std::nullopt;
    const auto min = number();
    if (!min) return std::nullopt;
    CountRange times{*min, *min};
    if (next(',')) times.max = number().value_or(kNoLimit);
    if (!next('}')) return std::nullopt;
    return std::pair(times, at);
  }

  CodePoints character_class() {
    accept("[");
    const bool negated = accept("^");
    CodePoints result;
    while (!accept("]")) {
      if (done()) bad("a ]");
      const CodePoints low = character(/*in_class=*/true);
      const bool range = starts_with("-") && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (!range) {
        result.insert(result.end(), low.begin(), low.end());
        continue;
      }
      accept("-");
      const CodePoints high = character(/*in_class=*/true);
      const auto single = [](const CodePoints& set) { return set.size() == 1 && set[0].first == set[0].second; };
      if (!single(low) || !single(high) || low[0].first > high[0].first) bad("a range in ascending order before this");
      result.emplace_back(low[0].first, high[0].first);
    }
    return complement(negated ? std::move(result) : complement(std::move(result)));
  }

  CodePoints character(bool in_class) {
    if (starts_with("\\")) return escape(in_class);
    const Utf8Step step = read_utf8(text_, at_);
    at_ += step.size;
    return {{step.code, step.code}};
  }

  CodePoints escape(bool in_class) {
    const char c = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    const auto one = [&](char32_t code) -> CodePoints {
      at_ += 2;
      return {{code, code}};
    };
    switch (c) {
      case 'd':
        at_ += 2;
        return kDigits;
      case 'D':
        at_ += 2;
        return complement(kDigits);
      case 'w':
        at_ += 2;
        return kWordCharacters;
      case 'W':
        at_ += 2;
        return complement(kWordCharacters);
      case 's':
        at_ += 2;
        return kSpaces;
      case 'S':
        at_ += 2;
        return complement(kSpaces);
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
        return hex_escape(2, 2);
      case 'u':
        return unicode_escape();
      default:
        break;
    }
    if (c == 'b' && in_class) return one('\b');
    if (c == '-' && !in_class) return one('-');
    if (std::string_view("^$\\.*+?()[]{}|/-\"'#&%,:;<=>@_`~! ").find(c) != std::string_view::npos) {
      return one(static_cast<char32_t>(c));
    }
    unsupported("such escape");
  }

  // Reads \xHH or \uHHHH: `digits` hexadecimal digits after `skip` bytes.
  CodePoints hex_escape(std::size_t skip, std::size_t digits) {
    char32_t code = 0;
    for (std::size_t i = 0; i < digits; ++i) {
      const int value = at_ + skip + i < text_.size() ? hex_digit(text_[at_ + skip + i]) : -1;
      if (value < 0) bad("hexadecimal digits");
      code = code * 16 + static_cast<char32_t>(value);
    }
    at_ += skip + digits;
    return {{code, code}};
  }

  CodePoints unicode_escape() {
    if (starts_with("\\u{")) {
      const std::size_t close = text_.find('}', at_);
      if (close == std::string_view::npos || close - at_ < 4 || close - at_ > 9) bad("\\u{1 to 6 digits}");
      const CodePoints result = hex_escape(3, close - at_ - 3);
      if (result[0].first > 0x10ffff) bad("a code point before this");
      accept("}");
      return result;
    }
    const CodePoints first = hex_escape(2, 4);
    if (first[0].first < 0xd800 || first[0].first > 0xdfff) return first;
    const CodePoints second = starts_with("\\u") ? hex_escape(2, 4) : CodePoints{{0, 0}};
    if (first[0].first > 0xdbff || second[0].first < 0xdc00 || second[0].first > 0xdfff) bad("surrogates in pairs");
    const char32_t code = 0x10000 + ((first[0].first - 0xd800) << 10) + (second[0].first - 0xdc00);
    return {{code, code}};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

PatternNode parse_pattern(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) fail("expected at most {} bytes, got {}", kMaxPatternBytes, pattern.size());
  check_utf8(pattern, "the pattern");
  return PatternParser(pattern).parse();
}

}  // namespace foe
