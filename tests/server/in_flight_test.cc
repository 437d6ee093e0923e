#include "server/in_flight.h"

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
  void fail(int status, const std::string&) override {
    EXPECT_FALSE(is_over);
    error = status;
    is_over = true;
  }
  void client_left() override { is_over = true; }
  bool ended() const override { return is_over; }
  std::string summary() const override { return ""; }

  std::vector<std::int32_t> tokens;
  int error = 0;
  bool is_over = false;
};

struct InFlightTest : testing::Test {
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
    auto answer = std::make_shared<RecordedAnswer>();
    in_flight.accept(answer, {request}, seconds);
    return answer;
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
  submitted.clear();
  in_flight.resubmit();
  ASSERT_EQ(submitted.size(), 1u);
  EXPECT_THAT(submitted[0].output, ElementsAre(5));
  in_flight.take({{.id = submitted[0].id, .token = 7, .finish = FinishReason::kStop}});
  EXPECT_THAT(first->tokens, ElementsAre(5, 7));
  submitted.clear();
  in_flight.resubmit();
  EXPECT_THAT(submitted, IsEmpty());
}

TEST_F(InFlightTest, AnAnswerMayHaveATimeOfItsOwn) {
  const auto late = accept(1e-9), patient = accept();
  in_flight.expire();
  EXPECT_EQ(late->error, 504);
  EXPECT_FALSE(patient->is_over);
}

}  // namespace
}  // namespace foe
