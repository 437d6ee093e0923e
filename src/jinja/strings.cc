#include "jinja/strings.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utf8proc.h>

#include "base/error.h"
#include "jinja/case_mapping.h"
#include "text/utf8.h"

namespace foe::jinja {
namespace {

// Appends map(code, i) for each character, which begins at byte i. Ill-formed bytes are kept.
template <typename Map>
std::string map_characters(std::string_view text, Budget& budget, Map map) {
  budget.work(16 * text.size());
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = read_utf8(text, i);
    if (step.kind == Utf8Step::kValid)
      for (const char32_t code : map(step.code, i)) append_utf8(result, code);
    else
      result += text.substr(i, step.size);
    i += step.size;
  }
  return result;
}

// Returns the character that ends at `end`.
std::string_view last_character(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
  return text.substr(begin, end - begin);
}

// Whether the capital sigma at byte `at` is the last letter of a word: then its small letter is another one.
bool ends_word(std::string_view text, std::size_t at, Budget& budget) {
  const auto letter = [&](std::string_view character) -> std::optional<bool> {
    budget.work(8);
    const char32_t code = read_utf8(character, 0).code;
    if (is_case_ignorable(code)) return {};
    return is_cased(code);
  };
  std::optional<bool> before, behind;
  for (std::size_t i = at; i > 0 && !before;) {
    const std::string_view character = last_character(text, i);
    before = letter(character);
    i -= character.size();
  }
  for (std::size_t i = at + 2; i < text.size() && !behind;) {
    const std::string_view character = text.substr(i, character_size(text, i));
    behind = letter(character);
    i += character.size();
  }
  return before.value_or(false) && !behind.value_or(false);
}

std::u32string lower_at(std::string_view text, char32_t code, std::size_t at, Budget& budget) {
  if (code == U'\u03a3' && ends_word(text, at, budget)) return U"\u03c2";
  return lower_of(code);
}

bool strips(std::string_view character, const std::string* of) {
  if (of != nullptr) return of->find(character) != std::string::npos;
  return is_python_space(read_utf8(character, 0).code);
}

std::vector<std::string_view> split_at_spaces(std::string_view text, std::int64_t limit, bool from_right,
                                              Budget& budget) {
  std::vector<std::string_view> parts;
  const Sides near = from_right ? kRight : kLeft;
  for (text = strip(text, near, nullptr, budget); !text.empty(); text = strip(text, near, nullptr, budget)) {
    if (limit >= 0 && static_cast<std::int64_t>(parts.size()) >= limit) {
      parts.push_back(text);
      break;
    }
    std::size_t size = 0;
    while (size < text.size()) {
      const std::string_view next =
          from_right ? last_character(text, text.size() - size) : text.substr(size, character_size(text, size));
      if (strips(next, nullptr)) break;
      size += next.size();
    }
    budget.memory(kTextBytes + size);
    parts.push_back(from_right ? text.substr(text.size() - size) : text.substr(0, size));
    if (from_right) {
      text.remove_suffix(size);
    } else {
      text.remove_prefix(size);
    }
  }
  return parts;
}

}  // namespace

bool is_python_space(char32_t code) {
  return is_space(code) || (code >= 0x1c && code <= 0x1f);
}

bool is_printable(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return code == U' ';
    default:
      return true;
  }
}

std::size_t character_size(std::string_view text, std::size_t position) {
  const Utf8Step step = read_utf8(text, position);
  return step.kind == Utf8Step::kValid ? step.size : 1;
}

std::size_t count_characters(std::string_view text, Budget& budget) {
  budget.work(text.size());
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string_view strip(std::string_view text, Sides sides, const std::string* of, Budget& budget) {
  const std::size_t cost = of == nullptr ? 8 : of->size() + 8;
  while ((sides & kLeft) != 0 && !text.empty()) {
    const std::size_t size = character_size(text, 0);
    budget.work(cost);
    if (!strips(text.substr(0, size), of)) break;
    text.remove_prefix(size);
  }
  while ((sides & kRight) != 0 && !text.empty()) {
    const std::string_view last = last_character(text, text.size());
    budget.work(cost);
    if (!strips(last, of)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

std::string to_upper(std::string_view text, Budget& budget) {
  return map_characters(text, budget, [](char32_t code, std::size_t) { return upper_of(code); });
}

std::string to_lower(std::string_view text, Budget& budget) {
  return map_characters(text, budget, [&](char32_t code, std::size_t at) { return lower_at(text, code, at, budget); });
}

std::string capitalize(std::string_view text, Budget& budget) {
  return map_characters(text, budget, [&](char32_t code, std::size_t at) {
    return at == 0 ? title_of(code) : lower_at(text, code, at, budget);
  });
}

std::string title(std::string_view text, Budget& budget) {
  return map_characters(text, budget, [&, inside = false](char32_t code, std::size_t at) mutable {
    return std::exchange(inside, is_cased(code)) ? lower_at(text, code, at, budget) : title_of(code);
  });
}

std::string title_words(std::string_view text, Budget& budget) {
  return map_characters(text, budget, [&, inside = false](char32_t code, std::size_t at) mutable {
    const bool separator = is_python_space(code) || std::u32string_view(U"-({[<").find(code) != std::string_view::npos;
    return std::exchange(inside, !separator) ? lower_at(text, code, at, budget) : upper_of(code);
  });
}

std::size_t find(std::string_view text, std::string_view part, std::size_t from, Budget& budget) {
  if (from > text.size()) return std::string_view::npos;
  const std::size_t size = text.size() - from;
  // memmem() takes up to 256 steps for each byte with short parts, and linear time with longer ones.
  budget.work(Budget::kNodeWork + part.size());
  const void* found = memmem(text.data() + from, size, part.data(), part.size());
  const std::size_t offset = found == nullptr ? std::string_view::npos
                                              : static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
  const std::size_t seen = found == nullptr ? size : offset - from;
  budget.work(seen + seen / 8 * std::min<std::size_t>(part.size(), 256));
  return offset;
}

std::string replace_all(std::string_view text, std::string_view old_part, std::string_view new_part, std::int64_t count,
                        Budget& budget) {
  TextBuilder out(budget);
  std::size_t from = 0;
  for (; count != 0; --count) {
    const std::size_t found = find(text, old_part, from, budget);
    if (found == std::string_view::npos) break;
    out.add(text.substr(from, found - from));
    out.add(new_part);
    from = found + old_part.size();
    if (!old_part.empty()) continue;
    if (from == text.size()) return out.take();  // an empty part is found before and after every character
    const std::size_t size = character_size(text, from);
    out.add(text.substr(from, size));
    from += size;
  }
  out.add(text.substr(from));
  return out.take();
}

std::vector<std::string_view> split(std::string_view text, const std::string* separator, std::int64_t limit,
                                    bool from_right, Budget& budget) {
  std::vector<std::string_view> parts;
  if (separator == nullptr) {
    parts = split_at_spaces(text, limit, from_right, budget);
  } else {
    if (separator->empty()) fail("split: expected a separator, got an empty text");
    while (limit < 0 || static_cast<std::int64_t>(parts.size()) < limit) {
      if (from_right) budget.work(text.size() * (1 + separator->size() / 8));  // rfind() compares at each place
      const std::size_t found = from_right ? text.rfind(*separator) : find(text, *separator, 0, budget);
      if (found == std::string_view::npos) break;
      budget.memory(kTextBytes);
      const std::size_t after = found + separator->size();
      parts.push_back(from_right ? text.substr(after) : text.substr(0, found));
      text = from_right ? text.substr(0, found) : text.substr(after);
    }
    parts.push_back(text);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends, Budget& budget) {
  constexpr std::u32string_view kEnds = U"\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029";
  std::vector<std::string_view> lines;
  budget.work(16 * text.size());
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step step = read_utf8(text, i);
    const std::size_t end = i;
    i += step.size;
    if (step.kind != Utf8Step::kValid || kEnds.find(step.code) == std::u32string_view::npos) continue;
    if (step.code == U'\r' && i < text.size() && text[i] == '\n') ++i;
    budget.memory(kTextBytes);
    lines.push_back(text.substr(begin, (keep_ends ? i : end) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

}  // namespace foe::jinja
