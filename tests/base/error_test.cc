#include "base/error.h"

#include <csignal>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

#include "base/check.h"

namespace foe {
namespace {

TEST(Error, SaysExactlyWhatItWasGiven) {
  try {
    fail("{}: expected {} bytes, got {}", "model.safetensors", 8, 7);
    FAIL() << "fail returned";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "model.safetensors: expected 8 bytes, got 7");
  }
}

TEST(Error, IsARuntimeError) {
  EXPECT_THROW(fail("braces {{}} stay"), std::runtime_error);
}

TEST(Check, PassesQuietlyAndEvaluatesItsConditionOnce) {
  int calls = 0;
  FOE_CHECK(++calls == 1, "{} calls", calls);
  EXPECT_EQ(calls, 1);
  const auto never = []() -> int { throw std::logic_error("the message was formatted"); };
  FOE_CHECK(true, "{}", never());
}

TEST(CheckDeathTest, AbortsWithPlaceConditionAndValues) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const int heads = 3;
  EXPECT_EXIT(FOE_CHECK(heads % 2 == 0, "{} heads", heads), testing::KilledBySignal(SIGABRT),
              "error_test\\.cc:[0-9]+: broken invariant: heads % 2 == 0: 3 heads");
}

}  // namespace
}  // namespace foe
