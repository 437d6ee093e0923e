#include "base/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string members(std::size_t count) {
  std::string text = "{";
  for (std::size_t i = 0; i < count; ++i) text += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":0";
  return text + "}";
}

void expect_refused(const std::string& text, const std::string& reason) {
  EXPECT_THAT([&] { parse_strict_json(text, "f"); }, ThrowsMessage<Error>(HasSubstr("f: expected " + reason))) << text;
  EXPECT_THAT([&] { parse_ordered_json(text, "f"); }, ThrowsMessage<Error>(HasSubstr("f: expected " + reason))) << text;
}

TEST(StrictJson, GivesTheValue) {
  const std::string text = R"({"b": [1, -2, 0.5, null], "a": {"b": true, "a": "\u00e9"}})";
  EXPECT_EQ(parse_strict_json(text, "f"), json({{"a", {{"a", "\u00e9"}, {"b", true}}}, {"b", {1, -2, 0.5, nullptr}}}));
  EXPECT_EQ(parse_ordered_json(text, "f").dump(), "{\"b\":[1,-2,0.5,null],\"a\":{\"b\":true,\"a\":\"\u00e9\"}}");
}

TEST(StrictJson, RefusesWhatTheLibraryLetsPass) {
  expect_refused(R"({"a": 1, "b": {}, "a": 1})", "every key once, got \"a\" twice");
  expect_refused(R"([{"a": {"b": 1, "\u0062": 1}}])", "every key once, got \"b\" twice");
  expect_refused(std::string("1\0", 2), "JSON, got a NUL at byte 1");
  expect_refused(std::string(33, '[') + std::string(33, ']'), "JSON nested at most 32 deep");
  EXPECT_NO_THROW(parse_strict_json(std::string(32, '[') + std::string(32, ']'), "f"));
}

TEST(StrictJson, RefusesWhatIsNoJson) {
  for (const char* text : {"", "{", "[1] 2", "[1,]", "01", "NaN", "1e999", "'a'", "\"\xff\"", R"("\ud800")", "// 1"})
    expect_refused(text, "JSON, got: ");
}

TEST(StrictJson, LimitsMembersWhoseOrderItKeeps) {
  EXPECT_EQ(parse_ordered_json(members(kMaxOrderedMembers), "f").size(), kMaxOrderedMembers);
  EXPECT_THAT([] { parse_ordered_json(members(kMaxOrderedMembers + 1), "f"); },
              ThrowsMessage<Error>("f: expected objects of at most 1024 members, got one of more"));
  EXPECT_EQ(parse_strict_json(members(kMaxOrderedMembers + 1), "f").size(), kMaxOrderedMembers + 1);
}

TEST(StrictJson, ShortensBetweenCharacters) {
  EXPECT_EQ(shorten(std::string(160, 'x')), std::string(160, 'x'));
  EXPECT_EQ(shorten(std::string(161, 'x')), std::string(160, 'x') + "...");
  EXPECT_EQ(shorten(std::string(159, 'x') + "\u00e9"), std::string(159, 'x') + "...");
  EXPECT_EQ(excerpt(json("\xff")), "\"\xef\xbf\xbd\"");
}

}  // namespace
}  // namespace foe
