// Names of headers and columns, which count alike in lower and upper case.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace foe {

inline std::string lower_ascii(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](char c) { return 'A' <= c && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return result;
}

}  // namespace foe
