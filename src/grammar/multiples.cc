#include "grammar/multiples.h"

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace foe {
namespace {

constexpr std::uint64_t kMaxStep = 2000;  // without factors of ten
constexpr std::uint32_t kMaxDecimals = 6;

// How often ten divides the step of integers.
std::uint32_t tens(std::uint64_t& step) {
  std::uint32_t result = 0;
  for (; step % 10 == 0; step /= 10) ++result;
  return result;
}

void add_digit(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, std::uint64_t digit) {
  const auto byte = static_cast<std::uint8_t>('0' + digit);
  nfa.add_bytes(from, to, byte, byte);
}

// Adds the digits behind the point to each remainder in `states`, and what leads from there to the end.
void add_decimals(ByteNfa& nfa, std::vector<std::uint32_t> states, const Multiple& multiple, std::uint32_t end) {
  const std::uint64_t step = multiple.step;
  std::uint64_t power = 1;  // 10^decimals, of the digits that are still to come
  for (std::uint32_t i = 0; i < multiple.decimals; ++i) power = power * 10 % step;
  for (std::uint32_t i = 0; i <= multiple.decimals; ++i) {
    for (std::uint64_t r = 0; r < step; ++r)
      if (r * power % step == 0) nfa.add_empty(states[r], end);
    if (i == multiple.decimals) break;
    std::vector<std::uint32_t> next, from = states;
    for (std::uint64_t r = 0; r < step; ++r) next.push_back(nfa.add_state());
    if (i == 0)
      for (std::uint32_t& state : from) {
        const std::uint32_t point = nfa.add_state();
        nfa.add_bytes(state, point, '.', '.');
        state = point;
      }
    for (std::uint64_t r = 0; r < step; ++r)
      for (std::uint64_t digit = 0; digit < 10; ++digit) add_digit(nfa, from[r], next[(10 * r + digit) % step], digit);
    states = next;
    power = 1;
    for (std::uint32_t k = i + 1; k < multiple.decimals; ++k) power = power * 10 % step;
  }
}

}  // namespace

Multiple multiple_of(const SchemaPlace& place) {
  if (place.number() <= 0) place.wrong("a number above 0");
  std::string text = place.value->dump();
  if (text.find('e') != text.npos) place.wrong("a number of at most 6 digits behind the point, without an exponent");
  const std::size_t point = text.find('.');
  std::string fraction = point == text.npos ? "" : text.substr(point + 1);
  fraction.erase(fraction.find_last_not_of('0') + 1);
  if (fraction.size() > kMaxDecimals || text.size() - fraction.size() > 12)
    place.wrong("a number of at most 11 digits before the point and 6 behind it");
  Multiple result{std::stoull(text.substr(0, point) + fraction), static_cast<std::uint32_t>(fraction.size())};
  std::uint64_t rest = result.step;
  tens(rest);
  if (rest * (1 + result.decimals) > kMaxStep)
    place.wrong(fmt::format(
        "a step of at most {}, without point and zeros at its end, times one more than its digits behind the point",
        kMaxStep));
  return result;
}

ByteAutomaton multiples_automaton(const Multiple& multiple, AutomatonBudget& budget) {
  ByteNfa nfa;
  std::uint64_t step = multiple.step;
  const std::uint32_t zeros = multiple.decimals == 0 ? tens(step) : 0;
  const std::uint32_t start = nfa.add_state(), begin = nfa.add_state(), end = nfa.add_state();
  nfa.add_empty(start, begin);
  nfa.add_bytes(start, begin, '-', '-');
  std::vector<std::uint32_t> remainders;
  for (std::uint64_t r = 0; r < step; ++r) remainders.push_back(nfa.add_state());
  for (std::uint64_t digit = 0; digit < 10; ++digit) {
    add_digit(nfa, begin, remainders[digit % step], digit);
    for (std::uint64_t r = 0; r < step; ++r) add_digit(nfa, remainders[r], remainders[(10 * r + digit) % step], digit);
  }
  if (multiple.decimals > 0) {
    add_decimals(nfa, remainders, {step, multiple.decimals}, end);
  } else {
    std::uint32_t from = remainders[0];
    for (std::uint32_t i = 0; i < zeros; ++i) {
      const std::uint32_t to = nfa.add_state();
      nfa.add_bytes(from, to, '0', '0');
      from = to;
    }
    nfa.add_empty(from, end);
    nfa.add_bytes(begin, end, '0', '0');
  }
  return make_automaton(nfa, start, end, /*quoted=*/false, {}, budget);
}

}  // namespace foe
