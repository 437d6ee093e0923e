#include "grammar/number_pattern.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace foe {
namespace {

constexpr int kMaxDigits = 18;
constexpr double kMaxBound = 1e15;           // up to here doubles tell integers apart
constexpr double kMaxFractionalBound = 1e9;  // up to here they tell numbers with kFraction digits apart
constexpr int kFraction = 6;

std::int64_t power_of_ten(int exponent) {
  std::int64_t result = 1;
  for (int i = 0; i < exponent; ++i) result *= 10;
  return result;
}

// Numbers with the same number of digits before the point. They are given as these digits and all digits of the
// fraction. A text may leave out zeros at the end of the fraction, and the point if no digit is left.
class DigitRange {
 public:
  DigitRange(std::size_t integer_digits, std::size_t fraction_digits)
      : point_(integer_digits), size_(integer_digits + fraction_digits) {}

  std::string pattern(std::int64_t low, std::int64_t high) const {
    return from(0, fmt::format("{:0{}}", low, size_), fmt::format("{:0{}}", high, size_));
  }

 private:
  // Returns the pattern of the digits from `at` on, in [low, high].
  std::string from(std::size_t at, const std::string& low, const std::string& high) const {
    if (at == size_) return "";
    const bool no_low = low.find_first_not_of('0', at) == std::string::npos;
    const bool no_high = high.find_first_not_of('9', at) == std::string::npos;
    if (no_low && no_high) return any(at);
    std::string result = at == point_ ? "\\." : "";
    if (low[at] == high[at]) {
      result += low[at] + from(at + 1, low, high);
    } else {
      const auto fill = [&](const std::string& digits, char c) {
        return digits.substr(0, at + 1) + std::string(size_ - at - 1, c);
      };
      result += fmt::format("(?:{}{}|{}{}", low[at], from(at + 1, low, fill(low, '9')), high[at],
                            from(at + 1, fill(high, '0'), high));
      if (high[at] - low[at] > 1) result += fmt::format("|[{:c}-{:c}]{}", low[at] + 1, high[at] - 1, any(at + 1));
      result += ")";
    }
    return at >= point_ && no_low ? fmt::format("(?:{})?", result) : result;
  }

  std::string any(std::size_t at) const {
    if (at > point_) return fmt::format("[0-9]{{0,{}}}", size_ - at);
    const std::string fraction = size_ > point_ ? fmt::format("(?:\\.[0-9]{{1,{}}})?", size_ - point_) : "";
    return fmt::format("[0-9]{{{}}}", point_ - at) + fraction;
  }

  std::size_t point_, size_;
};

// Adds the numbers n / 10^fraction with 0 <= low <= n <= high.
void add_magnitudes(std::string& result, std::string_view sign, std::int64_t low, std::int64_t high, int fraction) {
  for (int digits = 1; digits + fraction <= kMaxDigits; ++digits) {
    const std::int64_t first = digits == 1 ? 0 : power_of_ten(digits - 1 + fraction);
    const std::int64_t last = power_of_ten(digits + fraction) - 1;
    if (std::max(first, low) > std::min(last, high)) continue;
    const DigitRange range(static_cast<std::size_t>(digits), static_cast<std::size_t>(fraction));
    result += result.empty() ? sign : fmt::format("|{}", sign);
    result += range.pattern(std::max(first, low), std::min(last, high));
  }
}

std::string bounded_pattern(std::optional<NumberBound> low, std::optional<NumberBound> high, int fraction) {
  const auto unit = static_cast<double>(power_of_ten(fraction));
  std::int64_t last = power_of_ten(kMaxDigits) - 1;
  std::int64_t first = -last;
  // The division rounds like a reader of the number does.
  if (low) {
    first = std::llround(low->value * unit);
    const double read = static_cast<double>(first) / unit;
    if (read < low->value || (low->exclusive && read == low->value)) ++first;
  }
  if (high) {
    last = std::llround(high->value * unit);
    const double read = static_cast<double>(last) / unit;
    if (read > high->value || (high->exclusive && read == high->value)) --last;
  }
  std::string parts;
  if (first < 0) add_magnitudes(parts, "-", std::max<std::int64_t>(1, -last), -first, fraction);
  if (last >= 0) add_magnitudes(parts, "", std::max<std::int64_t>(0, first), last, fraction);
  return parts.empty() ? "[]" : parts;
}

double largest(std::optional<NumberBound> low, std::optional<NumberBound> high) {
  const double result = std::max(low ? std::abs(low->value) : 0, high ? std::abs(high->value) : 0);
  if (!(result <= kMaxBound)) fail("expected bounds of numbers within -{0:g} and {0:g}, got {1:g}", kMaxBound, result);
  return result;
}

}  // namespace

std::string integer_pattern(std::optional<NumberBound> low, std::optional<NumberBound> high) {
  largest(low, high);
  return bounded_pattern(low, high, 0);
}

std::string number_pattern(std::optional<NumberBound> low, std::optional<NumberBound> high) {
  if (!low && !high) return "-?(?:0|[1-9][0-9]{0,17})(?:\\.[0-9]{1,18})?(?:[eE][-+]?[0-9]{1,2})?";
  return bounded_pattern(low, high, largest(low, high) <= kMaxFractionalBound ? kFraction : 0);
}

}  // namespace foe
