#include "sched/draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace foe {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::int32_t> guess(const std::vector<std::int32_t>& text, int most,
                                const std::vector<std::int32_t>& stop_ids = {}) {
  return guess_next(text, most, stop_ids);
}

TEST(GuessNext, GoesOnAsTheTextDidBefore) {
  EXPECT_THAT(guess({1, 2, 3, 4, 5, 6, 1, 2, 3}, 2), ElementsAre(4, 5));
  EXPECT_THAT(guess({9, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3}, 10), ElementsAre(4, 5, 6, 7, 1, 2, 3, 4, 5, 6));
}

TEST(GuessNext, NeedsThreeTokensThatWereThereBefore) {
  EXPECT_THAT(guess({}, 4), IsEmpty());
  EXPECT_THAT(guess({1}, 4), IsEmpty());
  EXPECT_THAT(guess({1, 1}, 4), IsEmpty());
  EXPECT_THAT(guess({1, 1, 1}, 4), IsEmpty());
  EXPECT_THAT(guess({2, 3, 4, 5, 9, 2, 3}, 4), IsEmpty());
  EXPECT_THAT(guess({1, 2, 3, 4, 5, 9, 2, 3}, 4), IsEmpty());
  EXPECT_THAT(guess({1, 1, 1, 1}, 3), ElementsAre(1, 1, 1));
  EXPECT_THAT(guess({1, 2, 3, 1, 2, 3}, 0), IsEmpty());
}

TEST(GuessNext, TakesTheLongestMatchAndOfEqualsTheLast) {
  //                 longer match      shorter, later
  EXPECT_THAT(guess({7, 1, 2, 3, 50, 8, 1, 2, 3, 60, 7, 1, 2, 3}, 1), ElementsAre(50));
  EXPECT_THAT(guess({1, 2, 3, 50, 1, 2, 3, 60, 7, 1, 2, 3}, 1), ElementsAre(60));
}

TEST(GuessNext, EndsBeforeAStopToken) {
  EXPECT_THAT(guess({1, 2, 3, 4, 5, 6, 1, 2, 3}, 9, {6, 77}), ElementsAre(4, 5));
  EXPECT_THAT(guess({1, 2, 3, 4, 5, 6, 1, 2, 3}, 9, {4}), IsEmpty());
}

TEST(DraftLength, GrowsWithRightGuessesAndPausesAfterWrongOnes) {
  DraftLength length;
  EXPECT_EQ(length.next(64), 4);
  length.learn(4, 4);
  EXPECT_EQ(length.next(64), 8);
  EXPECT_EQ(length.next(3), 3);
  length.learn(3, 3);  // no more were asked for
  EXPECT_EQ(length.next(64), 8);
  length.learn(8, 2);
  EXPECT_EQ(length.next(64), 2);
  for (const int pause : {1, 3, 7, 15, 31, 32, 32}) {
    length.learn(2, 0);
    for (int i = 0; i < pause; ++i) EXPECT_EQ(length.next(64), 0) << pause;
    EXPECT_EQ(length.next(64), 1) << pause;
  }
  length.learn(1, 1);
  EXPECT_EQ(length.next(64), 2);
}

}  // namespace
}  // namespace foe
