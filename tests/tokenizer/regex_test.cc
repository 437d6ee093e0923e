#include "tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<Span> find_all(std::string_view pattern, std::string_view text) {
  std::vector<Span> matches;
  RegexScratch scratch;
  Regex(pattern).find_all(text, scratch, matches);
  return matches;
}

TEST(Regex, FindsMatchesFromLeftToRight) {
  EXPECT_THAT(find_all("ab|a", "aab a"), ElementsAre(Span{0, 1}, Span{1, 3}, Span{4, 5}));
  EXPECT_THAT(find_all("x", "aab"), ElementsAre());
  EXPECT_THAT(find_all(R"(\p{L}+)", "é語 a"), ElementsAre(Span{0, 5}, Span{6, 7}));
}

TEST(Regex, EndsOnEmptyMatches) {
  EXPECT_THAT(find_all("x*", ""), ElementsAre(Span{0, 0}));
  // The empty match right after "xx" does not count.
  EXPECT_THAT(find_all("x*", "éxx"), ElementsAre(Span{0, 0}, Span{2, 4}));
}

TEST(Regex, LooksBehindTheLastMatch) {
  EXPECT_THAT(find_all("(?<=a)b|a", "ab"), ElementsAre(Span{0, 1}, Span{1, 2}));
}

// What differs between Oniguruma and PCRE2 follows Oniguruma.
TEST(RegexSyntax, MeansWhatOnigurumaMeans) {
  EXPECT_THAT(find_all(R"(\s)", "\u180e"), ElementsAre());
  EXPECT_THAT(find_all(R"([^\S])", "\u180e\u0085"), ElementsAre(Span{3, 5}));
  EXPECT_THAT(find_all(R"(\v)", "\n\v"), ElementsAre(Span{1, 2}));
  EXPECT_THAT(find_all("^a$", "a\na"), ElementsAre(Span{0, 1}, Span{2, 3}));
  EXPECT_THAT(find_all("a{,b", "a{,b"), ElementsAre(Span{0, 4}));
  EXPECT_THAT(find_all("[]a]+", "b]a"), ElementsAre(Span{1, 3}));
  EXPECT_THAT(find_all(R"(\p{^L})", "a1"), ElementsAre(Span{1, 2}));
  EXPECT_THAT(find_all(R"(\P{^L})", "a1"), ElementsAre(Span{0, 1}));
  EXPECT_THAT(find_all(R"(\p{Han})", "\u3001\u8a9e"), ElementsAre(Span{3, 6}));  // U+3001 has Han as an extension only
  EXPECT_THAT(find_all("(?i:'s)", "'\u017f"), ElementsAre(Span{0, 3}));
  EXPECT_THAT(find_all(R"(\x41\x{1f44d})", "A\U0001f44d"), ElementsAre(Span{0, 5}));
}

TEST(RegexSyntax, RefusesWhatItCannotTranslate) {
  struct Case {
    const char* pattern;
    const char* message;
  };
  const Case cases[] = {
      {R"(a\w)", "the escape \\w at byte 1"},
      {R"(\b)", "the escape \\b"},
      {R"((a)\1)", "the escape \\1"},
      {R"(\K)", "the escape \\K"},
      {R"(\Qa\E)", "the escape \\Q"},
      {"\\", "the escape"},
      {R"([\w])", "the escape \\w"},
      {"[[:alpha:]]", "a class inside a class at byte 1"},
      {"[a&&b]", "this intersection of classes"},
      {"[^a&&[b]]", "this intersection of classes"},
      {"[a&&[b]c]", "an intersection that goes on"},
      {"[a&&[b", "a character class without its ]"},
      {"[ab", "a character class without its ]"},
      {"[", "a character class without its ]"},
      {R"(\pL)", "\\p without {name}"},
      {R"(\p{L)", "\\p without {name}"},
      {R"(\p{sc=Han})", "this \\p{name}"},
      {R"(\xe9)", "\\x with a byte above 7f"},
      {R"(\x4)", "\\x without hexadecimal digits"},
      {R"(\x{})", "\\x without hexadecimal digits"},
      {R"(\x{4g})", "\\x without hexadecimal digits"},
      {R"(\x{41)", "\\x without hexadecimal digits"},
      {R"(\x{000000041})", "\\x without hexadecimal digits"},
      {"(?<name>a)", "this kind of group"},
      {"(?m)a", "this kind of group"},
      {"(*LIMIT_MATCH=1)", "this kind of group"},
      {"a{,2}", "an interval without a lower bound"},
      {"a{2}+", "a + after an interval"},
      {"a{2}?", "a ? after {n}"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT([&] { to_pcre2_syntax(c.pattern); }, ThrowsMessage<Error>(HasSubstr(c.message))) << c.pattern;
  }
}

TEST(Regex, RefusesMalformedAndHugePatterns) {
  for (const char* pattern : {"(", ")", "*a", "a{3,2}", "(?<=a+)b", R"(\p{Nowhere})", R"(\x{110000})", "[b-a]"}) {
    EXPECT_THAT([&] { Regex{pattern}; }, ThrowsMessage<Error>(HasSubstr("regex: "))) << pattern;
  }
  EXPECT_THAT([] { Regex{"\xff"}; }, ThrowsMessage<Error>(HasSubstr("valid UTF-8")));
  EXPECT_THAT([] { Regex{std::string(16 * 1024 + 1, 'a')}; },
              ThrowsMessage<Error>("regex: expected at most 16384 bytes, got 16385"));
  EXPECT_THROW(Regex{"((((a{1,200}){1,200}){1,200}){1,200})"}, Error);
  EXPECT_THROW(Regex{std::string(1000, '(') + std::string(1000, ')')}, Error);
}

TEST(Regex, GivesUpOnEndlessBacktracking) {
  const std::string text(64, 'a');
  // Ends that are no literal: PCRE2 sees beforehand that a literal is missing.
  for (const char* pattern :
       {"(?:a+)+[bc]", "(?:a|aa)+[bc]", "(?:a|a)*$(?<=b)", "(?:(?:a?){30}){30}[bc]", "a*a*a*a*a*[bc]"}) {
    EXPECT_THAT([&] { find_all(pattern, text); }, ThrowsMessage<Error>(HasSubstr("regex: gave up"))) << pattern;
  }
}

// As a text of digits has it: what groups them from the right looks ahead to the end of the run, at each place of it.
TEST(Regex, LooksAheadOverRunsOnce) {
  for (const std::size_t digits : {1, 2, 3, 4, 7, 299'999, 300'001}) {
    const std::string text = "a" + std::string(digits, '1') + " 12345b";
    std::vector<Span> groups, places;
    for (std::size_t at = 1; at < digits + 1;) {
      const std::size_t size = (digits + 1 - at) % 3 == 0 ? 3 : (digits + 1 - at) % 3;
      groups.push_back({at, at + size});
      if (size == 3) places.push_back({at, at});
      at += size;
    }
    groups.insert(groups.end(), {{digits + 2, digits + 4}, {digits + 4, digits + 7}});
    places.push_back({digits + 4, digits + 4});
    for (const char* pattern : {R"(\d{1,3}(?=(?:\d{3})*(?!\d)))", R"([0-9]{1,3}(?=(?:[0-9][0-9][0-9])*?(?![0-9]))|x+)",
                                R"((?i:x)|\p{N}{1,3}(?=(\p{N}{3})*(?!\p{N})))", R"(\d{1,3}(?=(?:\d{3})*(?:\D|$)))"}) {
      EXPECT_TRUE(find_all(pattern, text) == groups) << pattern << " " << digits;
    }
    EXPECT_TRUE(find_all(R"((?=(\d{3})+(?!\d)))", text) == places) << digits;
  }
  // Not those, but what looks like them.
  EXPECT_THAT(find_all(R"(a(?!(?:\d{2})*x))", "a12x a123x a1234"), ElementsAre(Span{5, 6}, Span{11, 12}));
  EXPECT_THAT(find_all(R"(a(?!(?:\d{2})*[x]))", "a12x a123x a1234"), ElementsAre(Span{5, 6}, Span{11, 12}));
  EXPECT_THAT(find_all("a(?=(?:[bc])*[d])?", "abcd ab"), ElementsAre(Span{0, 1}, Span{5, 6}));
  EXPECT_THAT(find_all("(?i:x(?=([b])+[c]))", "xBBC XbA"), ElementsAre(Span{0, 1}));
  EXPECT_THAT(find_all(R"((?=(?:[é]{2})+$))", "aéééé"), ElementsAre(Span{1, 1}, Span{5, 5}));
}

TEST(Regex, GivesUpWhereEachMatchTakesLong) {
  // Each place looks at all that follows, in a way that is not known.
  EXPECT_THAT([] { find_all(R"(\d(?=(?:\d|\d{2})*+(?!\d)))", std::string(200'000, '1')); },
              ThrowsMessage<Error>(HasSubstr("regex: gave up")));
}

TEST(Regex, GivesUpOnEndlessMemory) {
  EXPECT_THAT([] { find_all("(?:(?=(a|b))(?:a|b))*[cd]", std::string(1 << 22, 'a')); },
              ThrowsMessage<Error>(HasSubstr("regex: gave up")));
}

}  // namespace
}  // namespace foe
