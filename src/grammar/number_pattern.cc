#include "grammar/number_pattern.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace foe {
namespace {

constexpr int kMaxDigits = 18;               // of numbers without bounds, and of all with a fraction
constexpr double kMaxBound = 1e18;           // all numbers with kMaxDigits and no exponent are smaller
constexpr double kBeyondAll = 1e118;         // all numbers with kMaxDigits and an exponent of 2 digits are smaller
constexpr double kMaxFractionalBound = 1e9;  // up to here doubles tell numbers with kFraction digits apart
constexpr int kFraction = 6;
constexpr WideInteger kLeastInteger = std::numeric_limits<std::int64_t>::min();
constexpr WideInteger kLargestInteger = std::numeric_limits<std::uint64_t>::max();

WideInteger power_of_ten(int exponent) {
  WideInteger result = 1;
  for (int i = 0; i < exponent; ++i) result *= 10;
  return result;
}

// Numbers with the same number of digits before the point. They are given as these digits and all digits of the
// fraction. A text may leave out zeros at the end of the fraction, and the point if no digit is left.
class DigitRange {
 public:
  DigitRange(std::size_t integer_digits, std::size_t fraction_digits)
      : point_(integer_digits), size_(integer_digits + fraction_digits) {}

  std::string pattern(WideInteger low, WideInteger high) const {
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
void add_magnitudes(std::string& result, std::string_view sign, WideInteger low, WideInteger high, int fraction) {
  for (int digits = 1; digits == 1 || power_of_ten(digits - 1 + fraction) <= high; ++digits) {
    const WideInteger first = digits == 1 ? 0 : power_of_ten(digits - 1 + fraction);
    const WideInteger last = power_of_ten(digits + fraction) - 1;
    if (std::max(first, low) > std::min(last, high)) continue;
    const DigitRange range(static_cast<std::size_t>(digits), static_cast<std::size_t>(fraction));
    result += result.empty() ? sign : fmt::format("|{}", sign);
    result += range.pattern(std::max(first, low), std::min(last, high));
  }
}

// Returns a pattern of n / 10^fraction for all n in [first, last].
std::string range_pattern(WideInteger first, WideInteger last, int fraction) {
  std::string parts;
  if (first < 0) add_magnitudes(parts, "-", std::max<WideInteger>(1, -last), -first, fraction);
  if (last >= 0) add_magnitudes(parts, "", std::max<WideInteger>(0, first), last, fraction);
  return parts.empty() ? "[]" : parts;
}

// Returns the first integer from the bound on, towards larger ones for a low bound and towards smaller ones for a high
// one. Bounds beyond `least` and `most` count as one beyond these.
WideInteger integer_at(const NumberBound& bound, bool low, WideInteger least, WideInteger most) {
  const int inwards = low ? 1 : -1;
  if (bound.integer) return std::clamp(*bound.integer + (bound.exclusive ? inwards : 0), least - 1, most + 1);
  if (bound.value < static_cast<double>(least)) return least - 1;
  if (bound.value > static_cast<double>(most)) return most + 1;
  const double whole = low ? std::ceil(bound.value) : std::floor(bound.value);
  return static_cast<WideInteger>(whole) + (bound.exclusive && whole == bound.value ? inwards : 0);
}

// Returns the range of integers that all bounds leave of [least, most]. If they leave none, its end lies before its
// beginning or outside.
std::pair<WideInteger, WideInteger> integers_in(const NumberBounds& bounds, WideInteger least, WideInteger most) {
  WideInteger first = least, last = most;
  for (const NumberBound& bound : bounds.low) first = std::max(first, integer_at(bound, true, least, most));
  for (const NumberBound& bound : bounds.high) last = std::min(last, integer_at(bound, false, least, most));
  return {first, last};
}

// Returns the strictest of some bounds as doubles; none if there are none.
std::optional<NumberBound> strictest(const std::vector<NumberBound>& bounds, bool low) {
  std::optional<NumberBound> result;
  for (const NumberBound& bound : bounds) {
    const bool stricter = result && (low ? bound.value > result->value : bound.value < result->value);
    if (!result || stricter || (bound.value == result->value && bound.exclusive)) result = bound;
  }
  return result;
}

}  // namespace

std::string integer_pattern(const NumberBounds& bounds) {
  const WideInteger usual = power_of_ten(kMaxDigits) - 1;
  auto [first, last] = integers_in(bounds, kLeastInteger, kLargestInteger);
  if (first > kLargestInteger || last < kLeastInteger)
    fail("expected bounds that leave integers from {} to {}, got none of them", kLeastInteger, kLargestInteger);
  // Where no integer of 64 bits is a bound, integers have the usual length, unless the other bound wants longer ones.
  const auto is_bound = [](const std::vector<NumberBound>& some) {
    return std::ranges::any_of(some, [](const NumberBound& bound) { return bound.integer.has_value(); });
  };
  if (first == kLeastInteger && !is_bound(bounds.low) && last >= -usual) first = -usual;
  if (last == kLargestInteger && !is_bound(bounds.high) && first <= usual) last = usual;
  return range_pattern(first, last, 0);
}

std::string number_pattern(const NumberBounds& bounds) {
  const std::string digits = "-?(?:0|[1-9][0-9]{0,17})(?:\\.[0-9]{1,18})?";
  auto low = strictest(bounds.low, true), high = strictest(bounds.high, false);
  if (low && low->value <= -kBeyondAll) low.reset();
  if (high && high->value >= kBeyondAll) high.reset();
  if (!low && !high) return digits + "(?:[eE][-+]?[0-9]{1,2})?";
  if ((low && low->value >= kMaxBound) || (high && high->value <= -kMaxBound))
    fail("expected bounds that leave numbers within {:g}, got {:g}", kMaxBound,
         low && low->value >= kMaxBound ? low->value : high->value);
  const bool lower = low && low->value > -kMaxBound, upper = high && high->value < kMaxBound;
  if (!lower && !upper) return digits;
  const double largest = std::max(lower ? std::abs(low->value) : 0, upper ? std::abs(high->value) : 0);
  WideInteger last = power_of_ten(kMaxDigits) - 1, first = -last;
  if (largest > kMaxFractionalBound) {
    std::tie(first, last) = integers_in(bounds, first, last);
    return range_pattern(first, last, 0);
  }
  // The division rounds like a reader of the number does.
  const auto unit = static_cast<double>(power_of_ten(kFraction));
  if (lower) {
    first = std::llround(low->value * unit);
    const double read = static_cast<double>(first) / unit;
    if (read < low->value || (low->exclusive && read == low->value)) ++first;
  }
  if (upper) {
    last = std::llround(high->value * unit);
    const double read = static_cast<double>(last) / unit;
    if (read > high->value || (high->exclusive && read == high->value)) --last;
  }
  return range_pattern(first, last, kFraction);
}

}  // namespace foe
