#include "text/utf8.h"

#include <utf8proc.h>

#include "base/error.h"

namespace foe {

Utf8Step read_utf8(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t first = byte(position);
  if (first < 0x80) return {first, 1, Utf8Step::kValid};
  if (first < 0xc2 || first > 0xf4) return {0, 1, Utf8Step::kInvalid};
  const std::uint32_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  // Only the second byte is restricted further, to exclude overlong forms, surrogates and code points beyond U+10FFFF.
  std::uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  std::uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  char32_t code = first & (0x7fu >> size);
  for (std::uint32_t i = 1; i < size; ++i) {
    if (position + i == text.size()) return {0, i, Utf8Step::kIncomplete};
    const std::uint8_t next = byte(position + i);
    if (next < low || next > high) return {0, i, Utf8Step::kInvalid};
    code = code << 6 | (next & 0x3fu);
    low = 0x80;
    high = 0xbf;
  }
  return {code, size, Utf8Step::kValid};
}

void append_utf8(std::string& out, char32_t code) {
  const auto push = [&](char32_t bits) { out.push_back(static_cast<char>(bits)); };
  if (code < 0x80) return push(code);
  if (code < 0x800) {
    push(0xc0 | code >> 6);
  } else if (code < 0x10000) {
    push(0xe0 | code >> 12);
    push(0x80 | (code >> 6 & 0x3f));
  } else {
    push(0xf0 | code >> 18);
    push(0x80 | (code >> 12 & 0x3f));
    push(0x80 | (code >> 6 & 0x3f));
  }
  push(0x80 | (code & 0x3f));
}

void check_utf8(std::string_view text, std::string_view what) {
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = read_utf8(text, i);
    if (step.kind != Utf8Step::kValid) {
      fail("{} must be valid UTF-8: byte {} of {} is 0x{:02x}, which starts no complete character", what, i,
           text.size(), static_cast<unsigned char>(text[i]));
    }
    i += step.size;
  }
}

std::size_t append_lossy_utf8(std::string& out, std::string_view bytes, bool last, bool each_byte) {
  std::size_t i = 0;
  while (i < bytes.size()) {
    const Utf8Step step = read_utf8(bytes, i);
    if (step.kind == Utf8Step::kIncomplete && !last) break;
    if (step.kind == Utf8Step::kValid) {
      out.append(bytes, i, step.size);
    } else {
      for (std::uint32_t n = each_byte ? step.size : 1; n > 0; --n) append_utf8(out, 0xfffd);
    }
    i += step.size;
  }
  return i;
}

bool is_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
         code == 0x3000;
}

bool is_word(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      // The joiners, and the circled and squared letters: symbols that are Other_Alphabetic.
      return code == 0x200c || code == 0x200d || (code >= 0x24b6 && code <= 0x24e9) ||
             (code >= 0x1f130 && code <= 0x1f149) || (code >= 0x1f150 && code <= 0x1f169) ||
             (code >= 0x1f170 && code <= 0x1f189);
  }
}

}  // namespace foe
