// Finds where values of well-formed JSON begin and end in a text. Private to this folder's .cc files.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

namespace foe {

// Follows one array, object or string, beginning with its first byte. Of a text that is not well-formed it says
// something, too, but nothing that would make sense.
class JsonScanner {
 public:
  // Takes the next byte. Returns whether it was the value's last one.
  bool ends_with(char c) {
    if (in_string_) {
      if (escaped_)
        escaped_ = false;
      else if (c == '\\')
        escaped_ = true;
      else if (c == '"')
        in_string_ = false;
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && depth_ > 0) {
      --depth_;
    }
    return depth_ == 0 && !in_string_;
  }

  std::size_t depth() const { return depth_; }
  bool in_string() const { return in_string_; }

 private:
  std::size_t depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

inline constexpr std::string_view kWhiteSpace = " \t\r\n";

// Removes white space from the beginning of a text. Returns the character that is then first, or 0 at the end.
inline char next_character(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kWhiteSpace), text.size()));
  return text.empty() ? '\0' : text.front();
}
// The same, and removes the character if it is `c`. Returns whether it was.
inline bool take_character(std::string_view& text, char c) {
  if (next_character(text) != c) return false;
  text.remove_prefix(1);
  return true;
}

// Returns the length of the text without the white space at its end.
inline std::size_t trimmed_size(std::string_view text) {
  return text.find_last_not_of(kWhiteSpace) + 1;
}

// Returns the text without the white space around it.
inline std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == text.npos) return {};
  return text.substr(begin, trimmed_size(text) - begin);
}

// Returns the elements of a well-formed array, or the members of an object, as they are written.
inline std::vector<std::string_view> items_of(std::string_view container) {
  std::vector<std::string_view> items;
  JsonScanner scanner;
  std::size_t begin = 1;
  for (std::size_t i = 0; i < container.size(); ++i) {
    const bool ends = scanner.ends_with(container[i]);
    if (!ends && (scanner.depth() != 1 || scanner.in_string() || container[i] != ',')) continue;
    const std::string_view item = trim(container.substr(begin, i - begin));
    if (!item.empty()) items.push_back(item);
    begin = i + 1;
    if (ends) break;
  }
  return items;
}

// Returns the value of a member of a well-formed object, as it is written; empty if there is none of this name.
inline std::string_view value_of(std::string_view object, std::string_view name) {
  for (const std::string_view item : items_of(object)) {
    if (!item.starts_with('"') || !item.substr(1).starts_with(name) || !item.substr(1 + name.size()).starts_with('"'))
      continue;
    return trim(item.substr(item.find(':', name.size() + 2) + 1));
  }
  return {};
}

}  // namespace foe
