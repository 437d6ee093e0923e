#include "tokenizer/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace foe {
namespace {

constexpr char32_t kAlphabetEnd = 0x144;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

// The byte that each character below kAlphabetEnd stands for, or -1.
constexpr std::array<int, kAlphabetEnd> kByteOf = [] {
  std::array<int, kAlphabetEnd> table{};
  table.fill(-1);
  std::size_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    table[stands_for_itself(byte) ? static_cast<std::size_t>(byte) : next++] = byte;
  }
  return table;
}();
static_assert(kByteOf[0x120] == ' ' && kByteOf[0x10a] == '\n' && kByteOf[0x143] == 0xad);

}  // namespace

std::optional<std::string> from_byte_level(std::string_view token) {
  std::string bytes;
  for (std::size_t i = 0; i < token.size();) {
    const Utf8Step step = read_utf8(token, i);
    if (step.kind != Utf8Step::kValid || step.code >= kAlphabetEnd || kByteOf[step.code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOf[step.code]));
    i += step.size;
  }
  return bytes;
}

std::string to_byte_level(std::string_view bytes) {
  static const std::array<char32_t, 256> kCharacterOf = [] {
    std::array<char32_t, 256> table{};
    for (char32_t code = 0; code < kAlphabetEnd; ++code)
      if (kByteOf[code] >= 0) table[static_cast<std::size_t>(kByteOf[code])] = code;
    return table;
  }();
  std::string token;
  for (const char c : bytes) append_utf8(token, kCharacterOf[static_cast<std::uint8_t>(c)]);
  return token;
}

}  // namespace foe
