// Matches look-aheads over runs, such as the one that groups digits by thousands: (?=(\d{3})+(?!\d)). A regular
// expression engine would walk over the rest of a run at each of its places, which takes quadratic time. Here the
// result at each place is computed once. Private to this folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

// A look-ahead (?=(?:UNIT)*TAIL), or with + in place of *. The unit is a sequence of classes, so it always has the same
// number of characters. The tail looks at a fixed number of characters.
struct RunAhead {
  std::string unit, tail;  // in PCRE2's syntax
  bool at_least_one = false;
};

// Replaces the inside of each such look-ahead in `pattern`, which is in PCRE2's syntax, by a callout (?C0), (?C1) and
// so on, and returns the look-aheads in this order. Other look-aheads stay as they are.
std::vector<RunAhead> take_run_aheads(std::string& pattern);

// Answers the callouts during the search of one text.
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
