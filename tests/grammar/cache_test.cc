#include "grammar/cache.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

Constraint schema(int n) {
  return {Constraint::Kind::kJsonSchema, R"({"const": )" + std::to_string(n) + "}"};
}

TEST(GrammarCache, SharesWhatIsInUseAndKeepsTheLastOnes) {
  GrammarCache cache(2);
  const auto first = cache.get(schema(1));
  EXPECT_EQ(cache.get(schema(1)), first);
  EXPECT_NE(cache.get(schema(2)), first);
  EXPECT_EQ(cache.find(schema(2)), cache.get(schema(2))) << "kept";
  for (int n = 3; n < 10; ++n) cache.get(schema(n));
  EXPECT_EQ(cache.find(schema(2)), nullptr);
  EXPECT_EQ(cache.find(schema(1)), first) << "in use";
  EXPECT_EQ(cache.size(), 3u);
}

TEST(GrammarCache, TellsAnyObjectFromSchemas) {
  GrammarCache cache(4);
  const Constraint any{Constraint::Kind::kJsonObject, ""};
  const auto object = cache.get(any);
  EXPECT_EQ(cache.get(any), object);
  EXPECT_NE(cache.get({Constraint::Kind::kJsonSchema, R"({"type": "object"})"}), object);
  EXPECT_THROW(cache.get({Constraint::Kind::kJsonSchema, ""}), Error);
}

TEST(GrammarCache, ServesManyThreads) {
  GrammarCache cache(2);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) EXPECT_NE(cache.get(schema(i % 5)), nullptr);
    });
  threads.clear();
  EXPECT_LE(cache.size(), 2u);
}

}  // namespace
}  // namespace foe
