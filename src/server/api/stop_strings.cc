#include "server/api/stop_strings.h"

#include <algorithm>
#include <utility>

namespace foe {

std::size_t overlap(std::string_view text, std::string_view string) {
  std::size_t n = std::min(text.size(), string.size() - 1);
  while (n > 0 && !text.ends_with(string.substr(0, n))) --n;
  return n;
}

std::string StopStrings::push(std::string_view piece) {
  if (stopped()) return {};
  held_ += piece;
  // The string that is complete first ends the text, whatever comes after it in this piece, so that the result does not
  // depend on how the text was cut.
  std::size_t first_end = std::string::npos, begin = 0;
  for (const std::string& string : strings_) {
    const std::size_t at = held_.find(string);
    if (at == std::string::npos) continue;
    const std::size_t end = at + string.size();
    if (end < first_end || (end == first_end && at < begin)) {
      first_end = end;
      begin = at;
      matched_ = string;
    }
  }
  if (stopped()) {
    held_.resize(include_ ? first_end : begin);
    return std::move(held_);
  }
  std::size_t keep = 0;
  for (const std::string& string : strings_) keep = std::max(keep, overlap(held_, string));
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopStrings::finish() {
  if (stopped()) return {};
  return std::exchange(held_, {});
}

}  // namespace foe
