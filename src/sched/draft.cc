#include "sched/draft.h"

#include <algorithm>

namespace foe {
namespace {

constexpr int kLongestRepeated = 16;  // longer matches count as equally long
constexpr int kLongestPause = 32;

}  // namespace

std::vector<std::int32_t> guess_next(std::span<const std::int32_t> text, int most,
                                     std::span<const std::int32_t> stop_ids) {
  const int end = static_cast<int>(text.size());
  int longest = 0, behind = 0;  // the longest match, and the index behind it
  for (int at = end - 2; at + 1 >= kLeastRepeated && longest < kLongestRepeated; --at) {
    if (text[at] != text[end - 1]) continue;
    int length = 1;
    while (length <= at && length < kLongestRepeated && text[at - length] == text[end - 1 - length]) ++length;
    if (length <= longest) continue;
    longest = length;
    behind = at + 1;
  }
  std::vector<std::int32_t> guess;
  if (longest < kLeastRepeated) return guess;
  for (int i = 0; i < most; ++i) {
    // A text that repeats itself with a short period goes on with the guess.
    const std::int32_t token = behind + i < end ? text[behind + i] : guess[behind + i - end];
    if (std::ranges::find(stop_ids, token) != stop_ids.end()) break;
    guess.push_back(token);
  }
  return guess;
}

int DraftLength::next(int limit) {
  if (wait_ == 0) return std::min(length_, limit);
  --wait_;
  return 0;
}

void DraftLength::learn(int drafted, int accepted) {
  if (accepted == drafted) length_ = std::max(length_, 2 * drafted);
  if (accepted < drafted) length_ = std::max(accepted, 1);
  pause_ = accepted > 0 ? 0 : std::min(2 * pause_ + 1, kLongestPause);
  wait_ = pause_;
}

}  // namespace foe
