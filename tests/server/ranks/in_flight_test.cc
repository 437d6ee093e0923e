#include "server/ranks/in_flight.h"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Keeps what it was given, and takes no token 13.
struct RecordedAnswer : Answer {
  bool take(std::size_t, const TokenEvent& event) override {
    if (event.token == 13) foe::fail("expected another token than {}", event.token);
    tokens.push_back(event.token);
    return is_over = event.finish.has_value();
  }
  void fail(int status, const std::string& message) override {
    EXPECT_FALSE(is_over);
    why = message;
    error = status;
    is_over = true;
  }
  void client_left() override { is_over = true; }
  bool ended() const override { return is_over; }
  std::string summary() const override { return ""; }

  std::vector<std::int32_t> tokens;
  int error = 0;
  std::string why;
  bool is_over = false;
};

struct InFlightTest : testing::Test {
  InFlightTest() { in_flight.ranks_up(); }

  std::vector<Request> submitted;
  std::vector<std::int64_t> aborted;
  InFlight in_flight{8,
                     0,
                     {.submit = [this](const Request& request) { submitted.push_back(request); },
                      .abort = [this](std::int64_t id) { aborted.push_back(id); }}};

  std::shared_ptr<RecordedAnswer> accept(double seconds = 0) {
    Request request;
    request.prompt = {1};
    request.max_tokens = 4;
    request.sampling.min_tokens = 3;
    auto answer = std::make_shared<RecordedAnswer>();
    in_flight.accept(answer, {request}, seconds);
    return answer;
  }
  void restart() {
    submitted.clear();
    in_flight.ranks_lost();
    in_flight.ranks_up();
  }
};

TEST_F(InFlightTest, AnAnswerThatCannotUseItsTokenEndsAlone) {
  const auto bad = accept(), good = accept();
  in_flight.take({{.id = submitted[0].id, .token = 13}, {.id = submitted[1].id, .token = 5}});
  EXPECT_EQ(bad->error, 500);
  EXPECT_THAT(aborted, ElementsAre(submitted[0].id));
  EXPECT_THAT(good->tokens, ElementsAre(5));
  in_flight.take({{.id = submitted[0].id, .token = 6}});  // already on its way
  EXPECT_THAT(bad->tokens, IsEmpty());
  EXPECT_EQ(in_flight.size(), 1u);
}

TEST_F(InFlightTest, WhatIsResubmittedGoesOnBehindItsTokens) {
  const auto first = accept(), second = accept();
  in_flight.take({{.id = submitted[0].id, .token = 5}, {.id = submitted[1].id, .token = 6}});
  in_flight.client_left(second);
  restart();
  ASSERT_EQ(submitted.size(), 1u);
  EXPECT_THAT(submitted[0].output, ElementsAre(5));
  in_flight.take({{.id = submitted[0].id, .token = 7, .finish = FinishReason::kStop}});
  EXPECT_THAT(first->tokens, ElementsAre(5, 7));
  restart();
  EXPECT_THAT(submitted, IsEmpty());
}

TEST_F(InFlightTest, AnAnswerMayHaveATimeOfItsOwn) {
  const auto late = accept(1e-9), patient = accept();
  in_flight.expire();
  EXPECT_EQ(late->error, 504);
  EXPECT_FALSE(patient->is_over);
}

TEST_F(InFlightTest, WhatComesWhileTheRanksAreAwayWaitsForThem) {
  in_flight.ranks_lost();
  accept();
  EXPECT_THAT(submitted, IsEmpty());
  in_flight.ranks_up();
  EXPECT_EQ(submitted.size(), 1u);
}

TEST_F(InFlightTest, SuspectsRunAloneForOneTokenAndThenEveryoneGoesOn) {
  const auto first = accept(), second = accept();
  const std::int64_t a = submitted[0].id, b = submitted[1].id;
  in_flight.take({{.id = a, .token = 5}});
  restart();
  EXPECT_EQ(submitted.size(), 2u) << "one loss is an accident";
  restart();
  ASSERT_EQ(submitted.size(), 1u);
  EXPECT_EQ(submitted[0].id, a);
  EXPECT_EQ(submitted[0].max_tokens, 2);
  EXPECT_EQ(submitted[0].sampling.min_tokens, 2);
  const auto late = accept();
  EXPECT_EQ(submitted.size(), 1u) << "what comes meanwhile waits";
  in_flight.take({{.id = a, .token = 6, .finish = FinishReason::kLength}});
  EXPECT_FALSE(first->is_over);
  ASSERT_EQ(submitted.size(), 2u);
  EXPECT_EQ(submitted[1].id, b);
  in_flight.take({{.id = b, .token = 7, .finish = FinishReason::kStop}});
  EXPECT_TRUE(second->is_over) << "a stop id is an end";
  ASSERT_EQ(submitted.size(), 4u);
  EXPECT_EQ(submitted[2].id, a);
  EXPECT_EQ(submitted[2].max_tokens, 4);
  EXPECT_EQ(submitted[2].sampling.min_tokens, 3);
  EXPECT_THAT(submitted[2].output, ElementsAre(5, 6));
}

TEST_F(InFlightTest, ASuspectThatEndsLetsTheNextOneRun) {
  const auto leaves = accept(), fails = accept(), last = accept();
  const std::int64_t bad = submitted[1].id, good = submitted[2].id;
  restart();
  restart();
  in_flight.client_left(leaves);
  ASSERT_EQ(submitted.size(), 2u);
  in_flight.take({{.id = bad, .token = 13, .finish = FinishReason::kLength}});
  EXPECT_EQ(fails->error, 500);
  ASSERT_EQ(submitted.size(), 3u);
  EXPECT_EQ(submitted[2].id, good);
  in_flight.take({{.id = good, .token = 5, .finish = FinishReason::kLength}});
  EXPECT_EQ(submitted.size(), 4u) << "all that are left";
}

TEST_F(InFlightTest, TheLastTokenOfASuspectIsItsEnd) {
  const auto answer = accept();
  const std::int64_t id = submitted[0].id;
  in_flight.take({{.id = id, .token = 1}, {.id = id, .token = 2}, {.id = id, .token = 3}});
  restart();
  restart();
  in_flight.take({{.id = id, .token = 4, .finish = FinishReason::kLength}});
  EXPECT_TRUE(answer->is_over);
  EXPECT_EQ(in_flight.size(), 0u);
}

// Ranks that die of some requests before they have given a token to any, until a job lives. Returns how many losses
// count against them.
int run_jobs(InFlightTest& t, const std::set<std::int64_t>& deadly) {
  int counted = 0;
  const auto dies = [&] {
    return std::any_of(t.submitted.begin(), t.submitted.end(), [&](const auto& r) { return deadly.contains(r.id); });
  };
  for (int jobs = 0; jobs < 100; ++jobs) {
    while (!dies() && t.submitted.size() == 1) {  // on trial
      const std::int64_t id = t.submitted[0].id;
      t.submitted.clear();
      t.in_flight.take({{.id = id, .token = 5, .finish = FinishReason::kLength}});
    }
    if (!dies()) return counted;
    t.submitted.clear();
    counted += 1 - t.in_flight.ranks_lost();
    t.in_flight.ranks_up();
  }
  ADD_FAILURE() << "no end";
  return counted;
}

TEST_F(InFlightTest, RequestsThatRanksDieOfEndAloneWhereverTheyStand) {
  constexpr int kRequests = 7;
  for (int bad = 0; bad < kRequests; ++bad)
    for (int worse = 0; worse < kRequests; ++worse) {
      std::vector<std::shared_ptr<RecordedAnswer>> answers;
      submitted.clear();
      for (int i = 0; i < kRequests; ++i) answers.push_back(accept());
      const std::int64_t first = submitted[0].id;
      EXPECT_LE(run_jobs(*this, {first + bad, first + worse}), 0) << "they are to blame for all losses";
      for (int i = 0; i < kRequests; ++i) {
        const bool deadly = i == bad || i == worse;
        EXPECT_EQ(answers[i]->error, deadly ? 500 : 0) << i << " of " << bad << ", " << worse;
        EXPECT_THAT(answers[i]->why, testing::StartsWith(deadly ? "the ranks died 6 times in a row" : ""));
      }
      in_flight.fail_all(503, "");
      EXPECT_EQ(in_flight.size(), 0u);
    }
}

TEST_F(InFlightTest, RanksThatDieOfSomethingElseTakeNobodyWithThem) {
  const auto a = accept(), b = accept(), c = accept();
  for (int i = 0; i < 5; ++i) restart();  // 2 in company, then each of the three alone
  EXPECT_EQ(a->error + b->error + c->error, 0);
}

// What an answer of many requests is made of: each ends with its only event.
struct Pieces : RecordedAnswer {
  explicit Pieces(std::size_t count) : left(count) {}
  bool take(std::size_t choice, const TokenEvent&) override {
    choices.push_back(choice);
    is_over = --left == 0;
    return true;
  }
  std::vector<std::size_t> choices;
  std::size_t left;
};

Request pooled(std::int32_t token) {
  Request request;
  request.prompt = {token};
  request.max_tokens = 0;
  request.pooling = Pooling::kMean;
  return request;
}

TEST_F(InFlightTest, AnAnswerOfManyRequestsHasSomeAtATimeWithTheRanks) {
  const auto pieces = std::make_shared<Pieces>(5);
  in_flight.accept(pieces, {pooled(0), pooled(1), pooled(2), pooled(3), pooled(4)}, 0, 2);
  EXPECT_EQ(in_flight.size(), 2u);
  EXPECT_EQ(in_flight.room(), 6u);
  const auto end = [&](std::size_t i) {
    in_flight.take({{.id = submitted.at(i).id, .finish = FinishReason::kStop, .state = {1}}});
  };
  end(1);
  ASSERT_EQ(submitted.size(), 3u);
  EXPECT_EQ(submitted[2].prompt[0], 2);
  EXPECT_EQ(in_flight.size(), 2u);
  restart();  // those of the answer that are entered, whole
  ASSERT_EQ(submitted.size(), 2u);
  EXPECT_EQ(submitted[0].prompt[0], 0);
  EXPECT_EQ(submitted[1].pooling, Pooling::kMean);
  for (int i = 0; i < 4; ++i) end(i);
  EXPECT_THAT(pieces->choices, ElementsAre(1, 0, 2, 3, 4));
  EXPECT_TRUE(pieces->is_over);
  EXPECT_EQ(in_flight.size(), 0u);
}

TEST_F(InFlightTest, AnAnswerThatEndsEarlyHasNoMoreRequests) {
  const auto left = std::make_shared<Pieces>(4), failed = std::make_shared<Pieces>(4);
  for (const auto& answer : {left, failed})
    in_flight.accept(answer, {pooled(0), pooled(1), pooled(2), pooled(3)}, 0, 2);
  in_flight.client_left(left);
  in_flight.fail(submitted[2].id, 400, "why");
  EXPECT_EQ(in_flight.size(), 0u);
  EXPECT_THAT(aborted,
              testing::UnorderedElementsAre(submitted[0].id, submitted[1].id, submitted[2].id, submitted[3].id));
  EXPECT_EQ(submitted.size(), 4u);
}

// A suspect that is alone with the ranks has all of its work to do, as it has no tokens to get.
TEST_F(InFlightTest, ASuspectWithPoolingRunsAsItIs) {
  const auto pieces = std::make_shared<Pieces>(1);
  in_flight.accept(pieces, {pooled(7)});
  for (int i = 0; i < kSuspectLosses; ++i) restart();
  ASSERT_EQ(submitted.size(), 1u);
  EXPECT_EQ(submitted[0].max_tokens, 0);
  in_flight.take({{.id = submitted[0].id, .finish = FinishReason::kStop, .state = {1}}});
  EXPECT_TRUE(pieces->is_over);
}

}  // namespace
}  // namespace foe
