// Threads that pretend to be on several nodes.

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "collectives.h"
#include "comm/node_grid.h"
#include "ranks.h"

namespace foe {
namespace {

using Nodes = std::vector<int>;

TEST(NodeGrid, SaysWhereARankIs) {
  const auto grid = node_grid({0, 0, 0, 1, 1, 2, 2}, 4);
  ASSERT_TRUE(grid);
  EXPECT_EQ(grid->node, 1);
  EXPECT_EQ(grid->place, 1);
  EXPECT_EQ(grid->fewest, 2);
  EXPECT_EQ(grid->begin, (Nodes{0, 3, 5, 7}));
}

TEST(NodeGrid, IsNothingWhereTwoLevelsGainNothing) {
  for (const Nodes& nodes : {Nodes{0}, Nodes{0, 0, 0}, Nodes{0, 1}, Nodes{0, 1, 2, 3}, Nodes{0, 1, 0, 1}})
    for (int rank = 0; rank < static_cast<int>(nodes.size()); ++rank) EXPECT_FALSE(node_grid(nodes, rank));
}

class OnNodes : public testing::TestWithParam<Nodes> {};
INSTANTIATE_TEST_SUITE_P(Nodes, OnNodes,
                         testing::Values(Nodes{0, 0, 1, 1}, Nodes{0, 0, 1}, Nodes{0, 1, 1}, Nodes{0, 1, 1, 1, 1},
                                         Nodes{0, 0, 0, 1, 1, 2, 2}, Nodes{0, 0, 1, 1, 2, 2, 3, 3},
                                         Nodes{0, 1, 0, 1},  // not consecutive: one level
                                         Nodes{0, 1, 2}),
                         [](const auto& nodes) {
                           std::string name;
                           for (const int node : nodes.param) name += std::to_string(node);
                           return name;
                         });

TEST_P(OnNodes, BroadcastAndGather) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    EXPECT_EQ(comm.nodes(), GetParam());
    for (const std::size_t length : {0, 1, 1000, 300000, 3}) check_broadcast(comm, length, length);
    for (const Wire wire : kWires)
      for (std::uint64_t seed = 0; seed < 10; ++seed)
        check_gather(comm, random_counts(comm.size(), 500, seed), seed, wire);
  });
}

TEST_P(OnNodes, OrderedSumsHaveTheBitsOfTheTree) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    for (int leaves = 1; leaves <= 13; ++leaves)
      for (const std::size_t count : {0, 1, 7, 100}) {
        check_ordered_sum(comm, even_split(leaves, comm.size()), count, leaves);
        check_sum_in_place(comm, even_split(leaves, comm.size()), count, leaves);
        for (std::uint64_t seed = 1; seed < 6; ++seed)
          check_ordered_sum(comm, random_split(leaves, comm.size(), seed * 100 + leaves), count, seed);
      }
    for (const int leaves : {1, 8, 13})
      for (const std::size_t count : {8191, 8192, 8193, 20001, 70000}) {
        check_ordered_sum(comm, even_split(leaves, comm.size()), count, leaves);
        check_sum_in_place(comm, even_split(leaves, comm.size()), count, leaves);
        check_ordered_sum(comm, random_split(leaves, comm.size(), leaves), count, leaves);
        check_sum_in_place(comm, random_split(leaves, comm.size(), leaves), count, leaves);
      }
    check_ordered_sum(comm, random_split(5, comm.size(), 6), 700000, 2);
    check_sum_in_place(comm, random_split(5, comm.size(), 6), 700000, 2);
  });
}

TEST_P(OnNodes, LossySums) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    check_lossy_sums(comm);
    check_sum_of_infinity(comm);
  });
}

TEST_P(OnNodes, RandomSequencesAndSplits) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    check_random_sequence(comm, 150, 1);
    check_split(comm, 1);
  });
}

// The wire is that between nodes: ranks of one node add what they have exactly, whatever it is.
TEST(NodesComm, RoundsBetweenNodesOnly) {
  run_ranks(Nodes{0, 0, 1, 1}, kTimeout, [](Communicator& comm) {
    // 1 and 2^-8 are rounded to 1 by bf16 only when added; two of 2^-9 on the first node make one of 2^-8 there.
    std::vector<float> x(100, comm.rank() < 2 ? 0x1p-9f : comm.rank() == 2 ? 1.0f : 0x1p-8f);
    comm.ordered_sum(SumPlan({0, 1, 2, 3, 4}), x.data(), x.size(), Wire::kBF16);
    // The second node's partial is 1 + 2^-8, a tie that goes to 1.
    EXPECT_EQ(x, std::vector<float>(100, 1 + 0x1p-8f));
  });
}

// One message to each other node, from the first rank or from each, besides what stays inside.
TEST(NodesComm, SendsEachNodesPartialOnce) {
  run_ranks(Nodes{0, 0, 1, 1}, kTimeout, [](Communicator& comm) {
    const bool leader = comm.rank() % 2 == 0;
    check_ordered_sum(comm, even_split(4, 4), 1000, 1);
    EXPECT_EQ(comm.counters().sum.calls, 1u);
    EXPECT_EQ(comm.counters().sum.node_bytes, leader ? 4000u : 0u);
    CommCounter before = comm.counters().sum;
    check_ordered_sum(comm, even_split(4, 4), 20480, 1);
    EXPECT_EQ((comm.counters().sum - before).node_bytes, 4 * 20480 / 2u);
    before = comm.counters().sum;
    check_lossy_sum(comm, even_split(4, 4), 20480, 1, Wire::kInt8);
    EXPECT_EQ((comm.counters().sum - before).node_bytes, 20480 / 2 / 64 * 68u);
    check_broadcast(comm, 100, 1);  // the one above is one more
    EXPECT_EQ(comm.counters().broadcast.node_bytes, comm.rank() == 0 ? 400u + 4 * 20480 : 0u);
    EXPECT_EQ(comm.counters().broadcast.bytes, leader ? (comm.rank() == 0 ? 2 : 1) * (400u + 4 * 20480) : 0u);
  });
}

TEST(NodesComm, ARankThatLeavesFailsTheOthers) {
  for (int leaver = 0; leaver < 4; ++leaver)
    for (const std::size_t count : {100, 20000})
      run_ranks(Nodes{0, 0, 1, 1}, kTimeout, [&](Communicator& comm) {
        if (comm.rank() == leaver) return;
        std::string error;
        try {
          for (int i = 0; i < 4; ++i) check_ordered_sum(comm, even_split(4, 4), count, i);
        } catch (const Error& e) {
          error = e.what();
        }
        EXPECT_THAT(error, testing::HasSubstr("left the job"));
      });
}

}  // namespace
}  // namespace foe
