// Regular expressions of tokenizer.json. They are written in Oniguruma's Ruby syntax, and run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// Returns the PCRE2 pattern that means what `pattern` means to Oniguruma. The two differ in details (the characters of
// \s, \p{Han}, intervals, nested classes), so each construct is kept if it is known to mean the same, or rewritten.
// Throws Error, naming the construct, for any other.
std::string to_pcre2_syntax(std::string_view pattern);

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const Span&) const = default;
};

// The memory of one thread's matches. Make one for each call, and use it for many searches.
class RegexScratch {
 public:
  RegexScratch();

 private:
  friend class Regex;
  struct State;
  struct Free {
    void operator()(State* state) const;
  };
  std::unique_ptr<State, Free> state_;
};

// A compiled pattern. Immutable: any thread may search with it, each with a scratch of its own.
class Regex {
 public:
  // Throws Error if the pattern is too long, unsupported or malformed.
  explicit Regex(std::string_view pattern);

  // Appends all matches in `text` (valid UTF-8), from left to right, to `out`. An empty match right after another match
  // is left out. Throws Error if one match takes more steps (16 per byte) or memory (64 MiB), or all matches together
  // take more steps, than a well-behaved pattern does.
  void find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace foe
