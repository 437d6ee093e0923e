#include "engine/agreement.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/ranks.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Outcome {
  std::vector<std::string> errors, notes;  // by rank
};

Outcome agree(const std::vector<std::vector<Fact>>& facts, const std::vector<int>& nodes) {
  Outcome outcome{std::vector<std::string>(facts.size()), std::vector<std::string>(facts.size())};
  run_ranks(nodes, 60, [&](Communicator& comm) {
    try {
      outcome.notes[comm.rank()] = require_agreement(comm, facts[comm.rank()]);
    } catch (const Error& error) {
      outcome.errors[comm.rank()] = error.what();
    }
    EXPECT_EQ(comm.counters().total().calls, 0u);
  });
  return outcome;
}

TEST(Agreement, RanksThatAgree) {
  const std::vector<Fact> facts = {{"plan", "tp"}, {"KV cache", "bf16"}, {"weights", "abc"}};
  std::vector<Fact> idle = facts;
  idle[2].value = "";  // has read none
  for (const auto& nodes : {std::vector<int>{0}, std::vector<int>{0, 0, 0}, std::vector<int>{0, 0, 1}}) {
    std::vector<std::vector<Fact>> all(nodes.size(), facts);
    if (nodes.size() > 1) all[1] = idle;
    const Outcome outcome = agree(all, nodes);
    EXPECT_EQ(outcome.errors, std::vector<std::string>(nodes.size()));
    EXPECT_EQ(outcome.notes, std::vector<std::string>(nodes.size()));
  }
}

TEST(Agreement, EveryRankSaysWhichOneDiffersInWhat) {
  const std::vector<Fact> facts = {{"plan", "tp"}, {"KV cache", "bf16"}, {"wire", "f32"}};
  std::vector<Fact> other = facts;
  other[1].value = "int8";
  other[2].value = "bf16";
  for (const auto& nodes : {std::vector<int>{0, 0, 0}, std::vector<int>{0, 0, 1}}) {
    const Outcome outcome = agree({facts, facts, other}, nodes);
    for (const std::string& error : outcome.errors)
      EXPECT_EQ(
          error,
          "rank 2 differs from rank 0 in KV cache (int8 instead of bf16), wire (bf16 instead of f32): expected all "
          "ranks to have the same program, the same model and the same flags");
  }
}

// As where one rank runs another version of foe.
TEST(Agreement, AFactThatIsMissingDiffers) {
  const std::vector<Fact> facts = {{"plan", "tp"}}, more = {{"plan", "tp"}, {"news", "1"}};
  EXPECT_THAT(agree({facts, more}, {0, 0}).errors[0], StartsWith("rank 1 differs from rank 0 in news (1 instead of"));
  EXPECT_THAT(agree({more, facts}, {0, 0}).errors[1], HasSubstr("news (nothing instead of 1)"));
}

TEST(Agreement, NamesAFewOfManyDifferences) {
  std::vector<Fact> a, b;
  for (char name = 'a'; name < 'k'; ++name) {
    a.push_back({std::string(1, name), "0"});
    b.push_back({std::string(1, name), "1"});
  }
  EXPECT_THAT(agree({a, b}, {0, 0}).errors[0], HasSubstr("e (1 instead of 0) and 5 more: expected"));
}

TEST(Agreement, WhatMayDifferIsALineOnRank0) {
  const std::vector<Fact> facts = {{"plan", "tp"}, {"instruction set", "AVX3", true}};
  std::vector<Fact> other = facts;
  other[1].value = "AVX2";
  const Outcome outcome = agree({facts, other}, {0, 0});
  EXPECT_EQ(outcome.errors, std::vector<std::string>(2));
  EXPECT_EQ(outcome.notes,
            (std::vector<std::string>{"rank 1 differs from rank 0 in instruction set (AVX2 instead of AVX3)", ""}));
}

}  // namespace
}  // namespace foe
