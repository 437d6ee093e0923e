// Which texts a schema allows, for tests.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "grammar/walk.h"

namespace foe {

inline GrammarMatcher after(const std::string& schema, std::string_view text) {
  static const auto table = make_table({});
  GrammarMatcher matcher(compile(schema), table);
  for (const char byte : text) matcher.accept(static_cast<std::uint8_t>(byte));
  return matcher;
}

inline void expect_texts(const std::string& schema, const std::vector<std::string>& right,
                         const std::vector<std::string>& wrong) {
  for (const std::string& text : right) EXPECT_TRUE(after(schema, text).complete()) << schema << "  " << text;
  for (const std::string& text : wrong) EXPECT_FALSE(after(schema, text).complete()) << schema << "  " << text;
}

}  // namespace foe
