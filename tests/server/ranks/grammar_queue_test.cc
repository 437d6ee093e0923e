#include "server/ranks/grammar_queue.h"

#include <poll.h>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace foe {
namespace {

using testing::HasSubstr;

Request request_with(std::int64_t id, const std::string& schema, int priority = 0) {
  Request request;
  request.id = id;
  request.priority = priority;
  request.constraint = {Constraint::Kind::kJsonSchema, schema};
  return request;
}

std::string schema_of(int n) {
  return R"({"const": ")" + std::to_string(n) + R"("})";
}

// Waits for so many to come back.
std::list<GrammarQueue::Compilation> take(GrammarQueue& queue, std::size_t count) {
  std::list<GrammarQueue::Compilation> all = queue.take();
  while (all.size() < count) {
    pollfd event{queue.descriptor(), POLLIN, 0};
    if (poll(&event, 1, 20000) <= 0) {
      ADD_FAILURE() << "nothing came";
      break;
    }
    all.splice(all.end(), queue.take());
  }
  return all;
}

TEST(GrammarQueue, CompilesASchemaOnce) {
  GrammarQueue queue(64);
  for (int id = 1; id <= 20; ++id) queue.add(request_with(id, schema_of(id % 2)));
  std::set<const Grammar*> grammars;
  std::int64_t expected = 1;
  for (const auto& ready : take(queue, 20)) {
    EXPECT_EQ(ready.request.id, expected++);
    EXPECT_EQ(ready.refusal, "");
    grammars.insert(ready.grammar.get());
  }
  EXPECT_EQ(grammars.size(), 2u);
  EXPECT_EQ(grammars.count(nullptr), 0u);
  EXPECT_EQ(queue.size(), 0u);
}

TEST(GrammarQueue, SaysWhyASchemaIsNone) {
  GrammarQueue queue(64);
  queue.add(request_with(1, R"({"type": "nothing"})"));
  const auto ready = take(queue, 1);
  EXPECT_EQ(ready.front().grammar, nullptr);
  EXPECT_THAT(ready.front().refusal, HasSubstr("#/type"));
}

// Those that are in use fill the queue; the next ones come as others end, and those of a lower number first.
TEST(GrammarQueue, BoundsTheGrammarsInUse) {
  constexpr int kMost = 12;
  GrammarQueue queue(kMost);
  for (int id = 1; id <= kMost; ++id) queue.add(request_with(id, schema_of(id)));
  auto in_use = take(queue, kMost);
  for (int id = 21; id <= 24; ++id) queue.add(request_with(id, schema_of(id), 24 - id));
  queue.add(request_with(30, schema_of(30), 1));
  queue.abort(22);
  EXPECT_TRUE(queue.take().empty());
  EXPECT_EQ(queue.size(), 4u);
  in_use.clear();
  std::vector<std::int64_t> order;
  for (const auto& ready : take(queue, 4)) order.push_back(ready.request.id);
  EXPECT_THAT(order, testing::ElementsAre(24, 23, 30, 21));
}

TEST(GrammarQueue, ForgetsWhatIsAborted) {
  GrammarQueue queue(64);
  for (int id = 1; id <= 50; ++id) queue.add(request_with(id, schema_of(id)));
  for (int id = 2; id <= 50; ++id) queue.abort(id);
  const auto ready = take(queue, 1);
  EXPECT_EQ(ready.front().request.id, 1);
  queue.add(request_with(60, schema_of(60)));
  for (const auto& next : take(queue, 1)) EXPECT_EQ(next.request.id, 60);
}

TEST(GrammarQueue, EndsWhileRequestsWait) {
  GrammarQueue queue(64);
  for (int id = 1; id <= 1000; ++id) queue.add(request_with(id, schema_of(id)));
}

}  // namespace
}  // namespace foe
