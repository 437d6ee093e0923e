#include "eval/scored_text.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "eval/text_rules.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(TextRules, AreThoseOfPython) {
  EXPECT_EQ(strip("\u2003\x1f a\u00a0"), "a");
  EXPECT_EQ(strip_right("\t a \n"), "\t a");
  EXPECT_EQ(strip(""), "");
  EXPECT_EQ(without_last_character("né"), "n");
  EXPECT_EQ(without_last_character(""), "");
  EXPECT_EQ(count_characters("né–"), 3u);
  EXPECT_EQ(capitalise("éLAN Vital"), "Élan vital");
  EXPECT_EQ(lower_first("ÉLAN"), "éLAN");
  EXPECT_EQ(remove_brackets("a[b]c[d\ne]f]"), "ac[d\ne]f]");
  EXPECT_EQ(remove_brackets("[a [b] c"), " c");
  EXPECT_EQ(replace_all("a   b", "  ", " "), "a  b");
}

// Every token is in one window's scored part, with the tokens before it that it is to have.
TEST(SlidingWindows, ScoreEachTokenOnceWithItsContext) {
  for (const std::size_t total : {2, 3, 7, 8, 9, 20, 64})
    for (const std::size_t window : {2, 3, 8, 30})
      for (const std::size_t stride : {1, 2, 7, 29}) {
        if (stride >= window) continue;
        std::size_t next = 1;
        for (const Window& w : sliding_windows(total, window, stride)) {
          EXPECT_EQ(w.from, next);
          EXPECT_GT(w.end, w.from);
          EXPECT_LE(w.end - w.begin, window);
          EXPECT_GE(w.from - w.begin, next < window ? next : window - stride);
          next = w.end;
        }
        EXPECT_EQ(next, total) << window << " " << stride;
      }
}

TEST(EncodeChoice, SplitsWhereTheContextAloneEnds) {
  const Tokenizer tokenizer = Tokenizer::of_model(FOE_SOURCE_DIR "/models/moe-8m");
  const ScoredTokens scored = encode_choice(tokenizer, "Question: Why?\nAnswer:", " because it is", 100, false);
  EXPECT_EQ(tokenizer.decode(scored.tokens), "Question: Why?\nAnswer: because it is");
  EXPECT_EQ(tokenizer.decode(std::span(scored.tokens).subspan(scored.from)), " because it is");
  EXPECT_EQ(scored.dropped, 0u);
  // Spaces at the end of a context count to the choice.
  const ScoredTokens moved = encode_choice(tokenizer, "Why? ", "because", 100, false);
  EXPECT_EQ(tokenizer.decode(std::span(moved.tokens).subspan(moved.from)), " because");

  const int most = static_cast<int>(scored.tokens.size()) - 2;
  const ScoredTokens cut = encode_choice(tokenizer, "Question: Why?\nAnswer:", " because it is", most, false);
  EXPECT_EQ(cut.dropped, 2u);
  EXPECT_EQ(cut.from, scored.from - 2);
  EXPECT_EQ(cut.tokens, std::vector(scored.tokens.begin() + 2, scored.tokens.end()));
  try {
    encode_choice(tokenizer, "Question:", " because it is", 3, false);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("expected a choice of fewer than 3 tokens, got 3"));
  }
}

TEST(Choose, TakesTheMostLikelyByLengthAndTheFirstOfEquals) {
  const Question q{"c", {"ab", "éé", "abcdef"}, 2};
  const Choice choice = choose(q, {-2, -3, -4.5});
  EXPECT_EQ(choice.best, 0);
  EXPECT_EQ(choice.by_characters, 2);                      // -1, -1.5, -0.75
  EXPECT_EQ(choose(q, {-4, -5, -12.1}).by_characters, 0);  // -2, -2.5, -2.02
  EXPECT_EQ(choose(q, {-4, -5, -12.1}).by_bytes, 1);       // -2, -1.25, -2.02
  EXPECT_EQ(choose(q, {-2, -2, -2}).best, 0);
}

// The reference is the definition: the standard deviation of the zeros and ones, with n - 1, over sqrt(n).
TEST(Accuracy, HasTheErrorOfAMean) {
  const std::vector<Question> questions(5, {"c", {"a", "b"}, 1});
  std::vector<Choice> choices(5);
  choices[0].best = choices[3].best = choices[4].best = 1;
  const Accuracy got = accuracy(questions, choices, &Choice::best);
  EXPECT_DOUBLE_EQ(got.mean, 0.6);
  double squares = 0;
  for (const double x : {1.0, 0.0, 0.0, 1.0, 1.0}) squares += (x - 0.6) * (x - 0.6);
  EXPECT_NEAR(got.error, std::sqrt(squares / 4) / std::sqrt(5.0), 1e-15);
  EXPECT_TRUE(std::isnan(accuracy({questions.data(), 1}, {choices.data(), 1}, &Choice::best).error));
}

}  // namespace
}  // namespace foe
