// Regular expressions as tokenizer.json writes them: Oniguruma's Ruby syntax, run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// The PCRE2 pattern that means what `pattern` means to Oniguruma. The two differ in small ways (what \s holds, \p{Han},
// intervals, nested classes), so every construct is either known to mean the same, rewritten, or an Error naming it.
std::string to_pcre2_syntax(std::string_view pattern);

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const Span&) const = default;
};

// The memory of one matching thread. Make one per call and use it for many searches.
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

// A compiled pattern. Immutable: any thread may search with it, each with its own scratch.
class Regex {
 public:
  // Throws Error if the pattern is too long, unsupported or malformed.
  explicit Regex(std::string_view pattern);

  // All matches in `text` (valid UTF-8) from left to right, appended to `out`. An empty match right after a match does
  // not count. Throws Error when one match takes more steps (16 per byte) or memory (64 MiB), or all together take more
  // steps, than a well-behaved pattern ever does.
  void find_all(std::string_view text, RegexScratch& scratch, std::vector<Span>& out) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace foe
