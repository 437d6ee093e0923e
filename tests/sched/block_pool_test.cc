#include "sched/block_pool.h"

#include <numeric>
#include <set>

#include <gtest/gtest.h>

namespace foe {
namespace {

constexpr std::int32_t kNone = BlockPool::kNone;

std::vector<std::int32_t> tokens_of(int value) {
  return std::vector<std::int32_t>(kKvBlock, value);
}
BlockPool::Tokens view(const std::vector<std::int32_t>& tokens) {
  return BlockPool::Tokens(tokens.data(), kKvBlock);
}

// Blocks that hold the given values, each behind the one before it.
std::vector<std::int32_t> chain(BlockPool& pool, const std::vector<int>& values) {
  std::vector<std::int32_t> table;
  for (const int value : values) {
    const std::vector<std::int32_t> tokens = tokens_of(value);
    const std::int32_t parent = table.empty() ? kNone : table.back();
    table.push_back(pool.publish(pool.allocate(), parent, view(tokens)));
  }
  return table;
}

std::int32_t find(const BlockPool& pool, std::int32_t parent, int value) {
  const std::vector<std::int32_t> tokens = tokens_of(value);
  return pool.find(parent, view(tokens));
}

TEST(BlockPool, HandsOutEachBlockOnceUntilItIsReleased) {
  BlockPool pool(5);
  std::vector<std::int32_t> blocks;
  for (int i = 0; i < 5; ++i) blocks.push_back(pool.allocate());
  EXPECT_EQ(std::set<std::int32_t>(blocks.begin(), blocks.end()), (std::set<std::int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.available(), 0);
  EXPECT_EQ(pool.in_use(), 5);
  pool.release(std::span(blocks).first(3));
  EXPECT_EQ(pool.available(), 3);
  pool.retain(blocks[4]);
  pool.release(std::span(blocks).last(1));
  EXPECT_EQ(pool.available(), 3);  // it has one more user
  std::vector<int> users(5);
  users[blocks[3]] = users[blocks[4]] = 1;
  pool.check(users);
}

TEST(BlockPoolDeathTest, RefusesWhatItDoesNotHave) {
  BlockPool pool(1);
  const std::vector<std::int32_t> table{pool.allocate()};
  EXPECT_DEATH(pool.allocate(), "all 1 blocks are in use");
  pool.release(table);
  EXPECT_DEATH(pool.release(table), "is free already");
  EXPECT_DEATH(pool.check(std::vector<int>{1}), "counts 0 users of 1");
}

TEST(BlockPool, FindsFullBlocksByTheirTokensAndWhatIsBeforeThem) {
  BlockPool pool(8);
  const auto a = chain(pool, {1, 2, 3}), b = chain(pool, {7, 2});
  EXPECT_NE(a[1], b[1]);
  EXPECT_EQ(find(pool, kNone, 1), a[0]);
  EXPECT_EQ(find(pool, a[0], 2), a[1]);
  EXPECT_EQ(find(pool, b[0], 2), b[1]);
  EXPECT_EQ(find(pool, b[0], 3), kNone);
  EXPECT_EQ(find(pool, kNone, 2), kNone);
  std::vector<std::int32_t> tokens = tokens_of(1);
  tokens.back() = 2;
  EXPECT_EQ(pool.find(kNone, view(tokens)), kNone);
}

TEST(BlockPool, OneOfTwoBlocksWithTheSameContentsIsKept) {
  BlockPool pool(8);
  const auto a = chain(pool, {1, 2});
  EXPECT_EQ(chain(pool, {1, 2, 3}).front(), a[0]);
  EXPECT_EQ(pool.in_use(), 3);
  pool.release(a);
  EXPECT_EQ(pool.in_use(), 3);
}

TEST(BlockPool, FreeBlocksKeepTheirContentsUntilTheLeastRecentlyUsedIsTaken) {
  BlockPool pool(4);
  const auto a = chain(pool, {1, 2}), b = chain(pool, {5, 6});
  pool.release(a);
  pool.release(b);
  EXPECT_EQ(pool.available(), 4);
  pool.retain(a[0]);  // used again
  pool.release(std::span(a).first(1));
  const std::vector<int> taken{a[1], b[1], b[0], a[0]};
  std::vector<int> users(4);
  for (const std::int32_t expected : taken) {
    EXPECT_EQ(pool.allocate(), expected);
    users[expected] = 1;
    pool.check(users);
  }
  EXPECT_EQ(find(pool, kNone, 1), kNone);
  EXPECT_EQ(find(pool, kNone, 5), kNone);
}

TEST(BlockPool, BlocksWithoutContentsAreTakenBeforeOthers) {
  BlockPool pool(3);
  const auto a = chain(pool, {1, 2});
  const std::vector<std::int32_t> empty{pool.allocate()};
  pool.release(a);
  pool.release(empty);
  EXPECT_EQ(pool.allocate(), empty[0]);
  EXPECT_EQ(find(pool, kNone, 1), a[0]);
}

}  // namespace
}  // namespace foe
