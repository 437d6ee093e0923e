#include "grammar/json_characters.h"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <string_view>

#include <fmt/core.h>

#include "text/utf8.h"

namespace foe {
namespace {

constexpr char32_t kLastCodePoint = 0x10ffff;

using ByteRange = std::pair<std::uint8_t, std::uint8_t>;

void add_sequence(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, std::span<const ByteRange> bytes) {
  for (std::size_t i = 0; i + 1 < bytes.size(); ++i) {
    const std::uint32_t next = nfa.add_state(/*inside_character=*/true);
    nfa.add_bytes(from, next, bytes[i].first, bytes[i].second);
    from = next;
  }
  nfa.add_bytes(from, to, bytes.back().first, bytes.back().second);
}

void add_escape(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, std::string_view bytes) {
  std::vector<ByteRange> ranges;
  for (const char c : bytes) ranges.emplace_back(c, c);
  add_sequence(nfa, from, to, ranges);
}

// Adds the code points in [low, high], whose encodings must have the same length. The range is split until its bytes
// vary independently.
void add_utf8(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, char32_t low, char32_t high) {
  std::string first, last;
  append_utf8(first, low);
  append_utf8(last, high);
  for (std::size_t i = 1; i < first.size(); ++i) {
    const unsigned shift = 6 * static_cast<unsigned>(first.size() - i);
    const char32_t mask = (char32_t{1} << shift) - 1;
    if (low >> shift == high >> shift) continue;
    if ((low & mask) != 0) {
      add_utf8(nfa, from, to, low, low | mask);
      return add_utf8(nfa, from, to, (low | mask) + 1, high);
    }
    if ((high & mask) != mask) {
      add_utf8(nfa, from, to, low, (high & ~mask) - 1);
      return add_utf8(nfa, from, to, high & ~mask, high);
    }
  }
  std::vector<ByteRange> bytes;
  for (std::size_t i = 0; i < first.size(); ++i) bytes.emplace_back(first[i], last[i]);
  add_sequence(nfa, from, to, bytes);
}

void add_escaped(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, char32_t code) {
  constexpr std::string_view kCodes = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  const std::size_t i = kCodes.find(static_cast<char>(code));
  add_escape(nfa, from, to,
             i == std::string_view::npos ? fmt::format("\\u{:04x}", static_cast<unsigned>(code))
                                         : std::string{'\\', kLetters[i]});
}

// Adds one hexadecimal digit with a value in [low, high].
void add_hex(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, unsigned low, unsigned high) {
  const auto add = [&](unsigned first, unsigned last, char zero) {
    if (std::max(low, first) > std::min(high, last)) return;
    nfa.add_bytes(from, to, static_cast<std::uint8_t>(zero + static_cast<char>(std::max(low, first) - first)),
                  static_cast<std::uint8_t>(zero + static_cast<char>(std::min(high, last) - first)));
  };
  add(0, 9, '0');
  add(10, 15, 'a');
  add(10, 15, 'A');
}

// Adds \uXXXX, with each digit in its range.
void add_unicode_escape(ByteNfa& nfa, std::uint32_t from, std::uint32_t to,
                        const std::array<std::pair<unsigned, unsigned>, 4>& digits) {
  std::uint32_t state = nfa.add_state(true);
  add_escape(nfa, from, state, "\\u");
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const std::uint32_t next = i + 1 == digits.size() ? to : nfa.add_state(true);
    add_hex(nfa, state, next, digits[i].first, digits[i].second);
    state = next;
  }
}

}  // namespace

CodePoints complement(CodePoints set) {
  std::sort(set.begin(), set.end());
  CodePoints result;
  char32_t next = 0;  // the first character that has not been dealt with
  for (const auto& [low, high] : set) {
    if (low > next) result.emplace_back(next, low - 1);
    next = std::max<char32_t>(next, high + 1);
  }
  if (next <= kLastCodePoint) result.emplace_back(next, kLastCodePoint);
  return result;
}

void add_characters(ByteNfa& nfa, std::uint32_t from, std::uint32_t to, const CodePoints& set, Spelling spelling) {
  // Of one range, all characters take the same number of bytes.
  constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x00, 0x7f}, {0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, kLastCodePoint}};
  const auto escaped = [&](char32_t code) {
    return spelling == Spelling::kJson && (code < 0x20 || code == '"' || code == '\\');
  };
  const auto add = [&](char32_t begin, char32_t end) {
    if (begin < end) add_utf8(nfa, from, to, begin, end - 1);
  };
  for (const auto& [low, high] : set)
    for (const auto& [first, last] : kRanges) {
      char32_t next = std::max(low, first);
      const char32_t end = std::min(high, last) + 1;
      for (char32_t code = next; code < std::min<char32_t>(end, '\\' + 1); ++code) {
        if (!escaped(code)) continue;
        add(next, code);
        add_escaped(nfa, from, to, code);
        next = code + 1;
      }
      add(next, end);
    }
}

ByteAutomaton make_string_automaton() {
  ByteNfa nfa;
  const std::uint32_t body = nfa.add_state();
  CodePoints plain = complement({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}});
  add_characters(nfa, body, body, plain);
  for (const char letter : std::string_view("\"\\/bfnrt")) add_escape(nfa, body, body, std::string{'\\', letter});
  add_unicode_escape(nfa, body, body, {{{0, 12}, {0, 15}, {0, 15}, {0, 15}}});
  add_unicode_escape(nfa, body, body, {{{13, 13}, {0, 7}, {0, 15}, {0, 15}}});
  add_unicode_escape(nfa, body, body, {{{14, 15}, {0, 15}, {0, 15}, {0, 15}}});
  const std::uint32_t half = nfa.add_state(true);
  add_unicode_escape(nfa, body, half, {{{13, 13}, {8, 11}, {0, 15}, {0, 15}}});
  add_unicode_escape(nfa, half, body, {{{13, 13}, {12, 15}, {0, 15}, {0, 15}}});
  AutomatonBudget budget;
  return make_automaton(nfa, body, body, /*quoted=*/true, {}, budget);
}

}  // namespace foe
