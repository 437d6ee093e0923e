#include "server/ranks/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::ThrowsMessage;

Request journalled_request(std::int32_t token, int max_tokens) {
  Request request;
  request.prompt = {token};
  request.max_tokens = max_tokens;
  return request;
}

TEST(Journal, GivesBackWhatIsInFlightWithItsTokens) {
  Journal journal(3);
  const std::int64_t a = journal.add(journalled_request(10, 4)).id;
  const std::int64_t b = journal.add(journalled_request(20, 4)).id;
  EXPECT_EQ(journal.room(), 1u);
  EXPECT_TRUE(journal.record({a, 11, {}}));
  EXPECT_TRUE(journal.record({b, 21, {}}));
  EXPECT_TRUE(journal.record({b, 22, {}}));

  const std::vector<Request> in_flight = journal.in_flight();
  ASSERT_EQ(in_flight.size(), 2u);
  EXPECT_EQ(in_flight[0].id, a);
  EXPECT_THAT(in_flight[0].prompt, ElementsAre(10));
  EXPECT_THAT(in_flight[0].output, ElementsAre(11));
  EXPECT_EQ(in_flight[1].id, b);
  EXPECT_THAT(in_flight[1].output, ElementsAre(21, 22));
}

TEST(Journal, AsksForThePromptsLogprobsOnce) {
  Journal journal(1);
  Request request = journalled_request(10, 4);
  request.sampling.prompt_logprobs = 2;
  const std::int64_t id = journal.add(request).id;
  EXPECT_EQ(journal.in_flight()[0].sampling.prompt_logprobs, 2);
  EXPECT_TRUE(journal.record({id, 11, {}}));
  EXPECT_EQ(journal.in_flight()[0].sampling.prompt_logprobs, -1);
}

TEST(Journal, EndsWithTheLastToken) {
  Journal journal(1);
  const std::int64_t id = journal.add(journalled_request(1, 4)).id;
  EXPECT_TRUE(journal.record({id, 2, FinishReason::kStop}));
  EXPECT_EQ(journal.size(), 0u);
  EXPECT_FALSE(journal.record({id, 3, {}}));
}

TEST(Journal, NeverGivesAnIdTwice) {
  Journal journal(1);
  const std::int64_t first = journal.add(journalled_request(1, 1)).id;
  journal.erase(first);
  EXPECT_NE(journal.add(journalled_request(1, 1)).id, first);
}

TEST(Journal, IgnoresTokensOfForgottenRequests) {
  Journal journal(1);
  const std::int64_t id = journal.add(journalled_request(1, 4)).id;
  journal.erase(id);
  journal.erase(id);
  EXPECT_FALSE(journal.record({id, 2, {}}));
  EXPECT_EQ(journal.room(), 1u);
}

TEST(Journal, RefusesMoreTokensThanWereAskedFor) {
  Journal journal(1);
  const std::int64_t id = journal.add(journalled_request(1, 1)).id;
  EXPECT_TRUE(journal.record({id, 2, {}}));
  EXPECT_THAT(
      [&] {
        journal.record({id, 3, {}});
      },
      ThrowsMessage<Error>("request 1: expected at most 1 tokens from the ranks, got more"));
}

TEST(Journal, SuspectsWhatWasLostTwiceWithoutAToken) {
  Journal journal(3);
  const std::int64_t a = journal.add(journalled_request(1, 4)).id;
  const std::int64_t b = journal.add(journalled_request(2, 4)).id;
  const std::int64_t c = journal.add(journalled_request(3, 4)).id;
  const auto suspect = [&] { return journal.suspect() ? journal.suspect()->id : 0; };
  for (const std::int64_t id : {a, b, c}) EXPECT_EQ(journal.count_loss(id), 1);
  EXPECT_EQ(suspect(), 0);
  EXPECT_TRUE(journal.record({a, 5, {}}));
  EXPECT_EQ(journal.count_loss(a), 1) << "it got on meanwhile";
  EXPECT_EQ(journal.count_loss(b), 2);
  EXPECT_EQ(journal.count_loss(c), 2);
  EXPECT_EQ(suspect(), b);
  EXPECT_EQ(journal.count_loss(b), 3);
  EXPECT_EQ(suspect(), c) << "with fewer losses";
  EXPECT_TRUE(journal.record({c, 5, {}}));
  EXPECT_EQ(suspect(), b);
  journal.erase(b);
  EXPECT_EQ(suspect(), 0);
}

TEST(JournalDeathTest, IsNotFilledPastItsCapacity) {
  Journal journal(1);
  journal.add(journalled_request(1, 1));
  EXPECT_DEATH(journal.add(journalled_request(1, 1)), "a journal of 1 requests is full");
}

TEST(Journal, AStateIsAllThatComesOfARequestWithPooling) {
  Journal journal(2);
  Request request;
  request.prompt = {1};
  request.max_tokens = 0;
  request.pooling = Pooling::kLast;
  const std::int64_t id = journal.add(request).id;
  EXPECT_THAT([&] { journal.record({.id = id, .token = 5}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("expected one state from the ranks, got a token")));
  EXPECT_TRUE(journal.record({.id = id, .finish = FinishReason::kStop, .state = {1.0f}}));
  EXPECT_EQ(journal.size(), 0u);
  EXPECT_FALSE(journal.record({.id = id, .finish = FinishReason::kStop, .state = {1.0f}}));
}

}  // namespace
}  // namespace foe
