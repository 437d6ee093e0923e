#include "tokenizer/run_ahead.h"

#include <cctype>

#include <fmt/core.h>

namespace foe {
namespace {

constexpr std::size_t kMaxCallouts = 256;  // PCRE2 numbers them with a byte

// Reads a pattern in PCRE2's syntax, as the translator writes it.
class Scanner {
 public:
  Scanner(std::string_view pattern, std::size_t at) : pattern_(pattern), at_(at) {}

  std::size_t at() const { return at_; }
  char peek() const { return at_ < pattern_.size() ? pattern_[at_] : '\0'; }
  bool accept(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  // Skips an escape; returns whether there was one.
  bool escape() {
    if (peek() != '\\') return false;
    const char kind = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    const bool braces = (kind == 'p' || kind == 'P' || kind == 'x') && at_ + 2 < pattern_.size();
    at_ = braces ? pattern_.find('}', at_) + 1 : at_ + 2;
    return true;
  }
  bool char_class() {
    if (!accept("[")) return false;
    while (at_ < pattern_.size() && peek() != ']')
      if (!escape()) ++at_;
    return accept("]");
  }
  // Skips a class of characters, which matches one character whatever the case of letters; returns whether there was
  // one.
  bool one_of_class() {
    const std::size_t begin = at_;
    if (char_class()) return true;
    if (escape() && std::string_view("dDpPx").find(pattern_[begin + 1]) != std::string_view::npos) return true;
    at_ = begin;
    return false;
  }
  bool repeated() const { return std::string_view("*+?{").find(peek()) != std::string_view::npos && peek() != '\0'; }
  // Skips {n}; returns whether there was one.
  bool count() {
    const std::size_t begin = at_;
    if (accept("{")) {
      while (std::isdigit(static_cast<unsigned char>(peek()))) ++at_;
      if (accept("}")) return true;
    }
    at_ = begin;
    return false;
  }

  // Skips a unit: one or more classes, each repeated a fixed number of times.
  bool unit() {
    const std::size_t begin = at_;
    while (one_of_class()) count();
    return at_ > begin && !repeated();
  }
  // Skips a tail, up to a parenthesis or bar outside it; returns whether it looks at a fixed number of characters.
  bool tail() {
    while (peek() != ')' && peek() != '|') {
      if (accept("$")) continue;
      if (accept("(?!") || accept("(?=") || accept("(?:")) {
        do {
          if (!tail()) return false;
        } while (accept("|"));
        if (!accept(")") || repeated()) return false;
      } else if (!unit()) {
        return false;
      }
    }
    return true;
  }

 private:
  std::string_view pattern_;
  std::size_t at_;
};

struct Found {
  RunAhead look;
  std::size_t begin, end;  // of what is inside its parentheses
};

// Reads a look-ahead at an opening "(?=" or "(?!".
bool read_run_ahead(std::string_view pattern, std::size_t at, Found& found) {
  Scanner scan(pattern, at);
  if (!scan.accept("(?=") && !scan.accept("(?!")) return false;
  found.begin = scan.at();
  if (!scan.accept("(?:")) return false;
  const std::size_t unit = scan.at();
  if (!scan.unit()) return false;
  found.look.unit = pattern.substr(unit, scan.at() - unit);
  if (!scan.accept(")")) return false;
  found.look.at_least_one = scan.peek() == '+';
  if (!scan.accept("+") && !scan.accept("*")) return false;
  if (scan.repeated() && !scan.accept("?")) return false;  // a lazy repeat means the same; a possessive one does not
  const std::size_t tail = scan.at();
  if (!scan.tail()) return false;
  found.look.tail = pattern.substr(tail, scan.at() - tail);
  found.end = scan.at();
  return scan.accept(")") && !scan.repeated();
}

}  // namespace

std::vector<RunAhead> take_run_aheads(std::string& pattern) {
  std::vector<RunAhead> taken;
  std::string result;
  Scanner scan(pattern, 0);
  std::size_t copied = 0;
  // Where letters match in either case, a class has more characters than it says.
  const bool any_case = pattern.find("(?i:") != pattern.npos;
  int depth = 0, any_case_depth = 0;
  while (scan.at() < pattern.size()) {
    Found found;
    const bool outside = !any_case || any_case_depth == 0;
    if (scan.peek() == '(' && outside && taken.size() < kMaxCallouts && read_run_ahead(pattern, scan.at(), found)) {
      result += pattern.substr(copied, found.begin - copied) + fmt::format("(?C{})", taken.size());
      copied = found.end;
      taken.push_back(found.look);
      scan = Scanner(pattern, found.end + 1);
      continue;
    }
    if (scan.escape() || scan.char_class()) continue;
    if (scan.peek() == '(') {
      ++depth;
      if (any_case_depth == 0 && std::string_view(pattern).substr(scan.at()).starts_with("(?i:"))
        any_case_depth = depth;
    }
    if (scan.peek() == ')' && depth-- == any_case_depth) any_case_depth = 0;
    scan = Scanner(pattern, scan.at() + 1);
  }
  pattern = result + pattern.substr(copied);
  return taken;
}

bool RunAheadFinder::matches(std::size_t which, std::size_t at) {
  const Code& code = codes_[which];
  if (!code.at_least_one) return runs_to_tail(which, at);
  std::size_t end = at;
  return match_(code.unit, text_, at, end, scratch_) && runs_to_tail(which, end);
}

// Whether any number of units and then the tail follow. All places on the way have the same result, because no tail
// matched at them.
bool RunAheadFinder::runs_to_tail(std::size_t which, std::size_t at) {
  std::vector<std::uint8_t>& known = known_[which];
  if (known.empty()) known.assign(text_.size() + 1, kUnknown);
  const Code& code = codes_[which];
  path_.clear();
  std::size_t end = at;
  Known answer = kNo;
  for (;; at = end) {
    if (known[at] != kUnknown) {
      answer = static_cast<Known>(known[at]);
      break;
    }
    path_.push_back(at);
    if (match_(code.tail, text_, at, end, scratch_)) {
      answer = kYes;
      break;
    }
    if (!match_(code.unit, text_, at, end, scratch_)) break;
  }
  for (const std::size_t place : path_) known[place] = answer;
  return answer == kYes;
}

}  // namespace foe
