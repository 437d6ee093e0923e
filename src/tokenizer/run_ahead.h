// Look-aheads that walk over a run, as those that group digits by thousands do: (?=(\d{3})+(?!\d)). Asked at each place
// of a run, they walk over the rest of it each time: a time quadratic in its length. Here each place is looked at once.
// Private to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// (?=(?:UNIT)*TAIL), or with + for *. The unit is characters of classes and so has one length in characters; the tail
// looks at a fixed number of characters.
struct RunAhead {
  std::string unit, tail;  // in PCRE2's syntax
  bool at_least_one = false;
};

// Puts a callout, (?C0) and so on, in the place of the inside of each such look-ahead in `pattern`, which is in PCRE2's
// syntax. What only resembles one stays as it is.
std::vector<RunAhead> take_run_aheads(std::string& pattern);

// Answers the callouts while one text is searched.
class RunAheadFinder {
 public:
  // Whether `pattern`, a pcre2_code, matches at this place.
  using MatchAt = bool (*)(const void* pattern, std::string_view text, std::size_t at, std::size_t& end, void* scratch);
  struct Code {
    const void *unit, *tail;
    bool at_least_one;
  };

  RunAheadFinder(std::string_view text, const std::vector<Code>& codes, MatchAt match, void* scratch)
      : text_(text), codes_(codes), match_(match), scratch_(scratch), known_(codes.size()) {}

  bool matches(std::size_t which, std::size_t at);

 private:
  enum Known : std::uint8_t { kUnknown, kNo, kYes };

  bool runs_to_tail(std::size_t which, std::size_t at);

  std::string_view text_;
  const std::vector<Code>& codes_;
  MatchAt match_;
  void* scratch_;
  std::vector<std::vector<std::uint8_t>> known_;  // by look-ahead and place
  std::vector<std::size_t> path_;
};

}  // namespace foe
