// Guesses how a text goes on, from what it repeats. (Speculation: guessed tokens run in one step with the token before
// them, and are kept as far as the model chooses the same ones. So guesses change how many steps a text takes, and
// never the text.)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace foe {

// Returns up to `most` tokens that may follow a text: those that follow the end of the text where it stands in the text
// before. Of all such places it takes one with the longest match, and of these the last one. Returns none if no earlier
// place has the last kLeastRepeated tokens. A guess ends before the first token of `stop_ids`. Takes time in proportion
// to the length of the text.
inline constexpr int kLeastRepeated = 3;
std::vector<std::int32_t> guess_next(std::span<const std::int32_t> text, int most,
                                     std::span<const std::int32_t> stop_ids);

// How long the next guess for one text may be, by what became of those before: a guess that was right doubles it, a
// wrong one cuts it to what was right. After guesses without a right token, some steps do without one, more each time.
class DraftLength {
 public:
  // To be called once for each step that could run a guess. Returns the most tokens to guess, at most `limit`.
  int next(int limit);
  // Tells that of a guess of `drafted` tokens the first `accepted` were right.
  void learn(int drafted, int accepted);

 private:
  int length_ = 4;
  int wait_ = 0;   // steps without a guess from now on
  int pause_ = 0;  // how many steps the last wrong guess cost
};

}  // namespace foe
