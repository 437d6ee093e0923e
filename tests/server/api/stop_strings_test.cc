#include "server/api/stop_strings.h"

#include <gtest/gtest.h>

namespace foe {
namespace {

// What the definition says, on the whole text.
std::string expected(const std::string& text, const std::vector<std::string>& strings, bool* stopped) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    const std::string* longest = nullptr;
    for (const std::string& string : strings)
      if (std::string_view(text).substr(0, end).ends_with(string) && (!longest || string.size() > longest->size()))
        longest = &string;
    if (!longest) continue;
    *stopped = true;
    return text.substr(0, end - longest->size());
  }
  *stopped = false;
  return text;
}

struct Case {
  std::string text;
  std::vector<std::string> strings;
};

const Case kCases[] = {
    {"plain text", {}},
    {"plain text", {"x."}},
    {"one STOP two", {"STOP"}},
    {"STOP", {"STOP"}},
    {"ST", {"STOP"}},
    {"SSTSTOSTOPS", {"STOP"}},
    {"aaaaaab", {"aab"}},
    {"abababac", {"abac"}},
    {"abcd", {"abcd", "bc"}},       // the shorter one is complete first
    {"xabcy", {"abc", "bc", "c"}},  // all end at the same byte: the longest counts
    {"first\n\nsecond", {"\n\n", "second"}},
    {"na\xc3\xafve \xe2\x82\xac", {"\xe2\x82\xac"}},
};

TEST(StopStrings, EndTheTextHoweverItIsCut) {
  for (const Case& c : kCases) {
    bool stopped = false;
    const std::string want = expected(c.text, c.strings, &stopped);
    // Every way to cut it: bit i says whether a piece ends behind byte i.
    const std::size_t bits = c.text.size() - 1;
    for (std::uint32_t cut = 0; cut < (1u << bits); ++cut) {
      StopStrings stop(c.strings);
      std::string got, piece;
      for (std::size_t i = 0; i < c.text.size(); ++i) {
        piece += c.text[i];
        if (i < bits && (cut >> i & 1) == 0) continue;
        got += stop.push(piece);
        piece.clear();
      }
      got += stop.finish();
      ASSERT_EQ(got, want) << c.text << ", cut " << cut;
      ASSERT_EQ(stop.stopped(), stopped) << c.text << ", cut " << cut;
    }
  }
}

TEST(StopStrings, HoldBackNoMoreThanTheyMust) {
  StopStrings stop({"STOP", "TOY"});
  EXPECT_EQ(stop.push("one S"), "one ");
  EXPECT_EQ(stop.push("T"), "");
  EXPECT_EQ(stop.push("O"), "");
  EXPECT_EQ(stop.push("R"), "STOR");
  EXPECT_EQ(stop.push("TO"), "");
  EXPECT_EQ(stop.finish(), "TO");
  EXPECT_FALSE(stop.stopped());
}

TEST(StopStrings, MayBePartOfTheText) {
  StopStrings stop({"STOP"}, true);
  std::string text;
  for (const char c : std::string("one STOP two")) text += stop.push({&c, 1});
  EXPECT_EQ(text, "one STOP");
  EXPECT_EQ(stop.matched(), "STOP");
}

TEST(StopStrings, AreSilentOnceStopped) {
  StopStrings stop({"."});
  EXPECT_EQ(stop.push("end. more"), "end");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.push("more"), "");
  EXPECT_EQ(stop.finish(), "");
}

}  // namespace
}  // namespace foe
