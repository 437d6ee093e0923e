#include "text/utf8.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

std::string lossy(std::string_view bytes) {
  std::string text;
  EXPECT_EQ(append_lossy_utf8(text, bytes, /*last=*/true), bytes.size());
  return text;
}

TEST(Utf8, ReadsBackEveryCodePoint) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xd800 && code < 0xe000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Step step = read_utf8(text, 0);
    ASSERT_EQ(step.kind, Utf8Step::kValid) << static_cast<unsigned>(code);
    ASSERT_TRUE(step.code == code);
    ASSERT_EQ(step.size, text.size());
    for (std::size_t size = 1; size < text.size(); ++size) {
      const Utf8Step part = read_utf8(std::string_view(text).substr(0, size), 0);
      ASSERT_EQ(part.kind, Utf8Step::kIncomplete) << static_cast<unsigned>(code);
      ASSERT_EQ(part.size, size);
    }
  }
}

// The examples of the Unicode Standard, chapter 3, tables 3-8 to 3-11.
TEST(Utf8, ReplacesMaximalPrefixes) {
  const std::string r = "\ufffd";
  EXPECT_EQ(lossy("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(lossy("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), r + r + r + r + "A");
}

TEST(Utf8, KeepsAnUnfinishedCharacter) {
  std::string text;
  EXPECT_EQ(append_lossy_utf8(text, "a\xf0\x9f\x91", /*last=*/false), 1u);
  EXPECT_EQ(text, "a");
  EXPECT_EQ(append_lossy_utf8(text, "\xf0\x9f\x28\xe2\x82", /*last=*/false), 3u);
  EXPECT_EQ(text, "a\ufffd(");
}

TEST(Utf8, ChecksWholeTexts) {
  EXPECT_NO_THROW(check_utf8("", "text"));
  EXPECT_NO_THROW(check_utf8("a\u00e9\u20ac\U0001f44d", "text"));
  for (const char* bad : {"\x80", "\xc1\xbf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
    EXPECT_THROW(check_utf8(bad, "text"), Error);
  }
}

TEST(Utf8, ClassifiesCharacters) {
  for (const char32_t space : {U'\t', U'\r', U' ', U'\u0085', U'\u00a0', U'\u1680', U'\u2003', U'\u2028', U'\u3000'}) {
    EXPECT_TRUE(is_space(space)) << static_cast<unsigned>(space);
    EXPECT_FALSE(is_word(space)) << static_cast<unsigned>(space);
  }
  for (const char32_t word :
       {U'a', U'7', U'_', U'\u00e9', U'\u0301', U'\u2160', U'\u200d', U'\u24b6', U'\u203f', U'語'}) {
    EXPECT_TRUE(is_word(word)) << static_cast<unsigned>(word);
    EXPECT_FALSE(is_space(word)) << static_cast<unsigned>(word);
  }
  for (const char32_t other : {U'-', U'\0', U'\u00b2', U'\u180e', U'\u200b', U'\ufeff', U'\U0001f44d'}) {
    EXPECT_FALSE(is_word(other)) << static_cast<unsigned>(other);
    EXPECT_FALSE(is_space(other)) << static_cast<unsigned>(other);
  }
}

TEST(Utf8, ReplacesEachByteOrEachSequence) {
  const auto replaced = [](std::string_view bytes, bool each_byte) {
    std::string out;
    EXPECT_EQ(append_lossy_utf8(out, bytes, /*last=*/true, each_byte), bytes.size());
    return out;
  };
  EXPECT_EQ(replaced("a\xe2\x96z\xff", false), "a\ufffdz\ufffd");
  EXPECT_EQ(replaced("a\xe2\x96z\xff", true), "a\ufffd\ufffdz\ufffd");
  EXPECT_EQ(replaced("\xe2\x96\x81\xf0\x9f\x91", true), "\u2581\ufffd\ufffd\ufffd");
}

}  // namespace
}  // namespace foe
