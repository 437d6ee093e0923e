// The collectives over processes: mpirun -n RANKS comm_mpi_test RANKS shared|mpi. With `mpi` the ranks do not share
// memory, as if each were on a node of its own.

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "comm/collectives.h"
#include "comm/communicator.h"
#include "comm/node_grid.h"

namespace foe {
namespace {

std::unique_ptr<Communicator> world;
bool share_memory = true;
int ranks = 0;

TEST(WorldComm, KnowsItsRanks) {
  EXPECT_EQ(world->size(), ranks);
  EXPECT_GE(world->rank(), 0);
  EXPECT_LT(world->rank(), ranks);
}

TEST(WorldComm, Broadcast) {
  // Around the head that MPI sends first (1024 words), around a piece of shared memory (1 MB), and longer.
  for (const std::size_t length : {0, 1, 1000, 0, 1022, 1023, 1024, 262143, 262144, 700000, 3})
    check_broadcast(*world, length, length);
}

TEST(WorldComm, OrderedSumOfAnySplit) {
  for (int leaves = 1; leaves <= 13; ++leaves)
    for (const std::size_t count : {0, 1, 7, 100}) {
      check_ordered_sum(*world, even_split(leaves, ranks), count, leaves);
      check_sum_in_place(*world, even_split(leaves, ranks), count, leaves);
      for (std::uint64_t seed = 1; seed < 4; ++seed)
        check_ordered_sum(*world, random_split(leaves, ranks, seed * 100 + leaves), count, seed);
    }
}

TEST(WorldComm, OrderedSumOfAnyLength) {
  for (const int leaves : {1, 8, 13})
    for (const std::size_t count : {8191, 8192, 8193}) {
      check_ordered_sum(*world, even_split(leaves, ranks), count, leaves);
      check_sum_in_place(*world, even_split(leaves, ranks), count, leaves);
      check_ordered_sum(*world, random_split(leaves, ranks, leaves), count, leaves);
      check_sum_in_place(*world, random_split(leaves, ranks, leaves), count, leaves);
    }
  check_ordered_sum(*world, even_split(4, ranks), 300000, 1);
  check_sum_in_place(*world, even_split(4, ranks), 300000, 1);
  check_ordered_sum(*world, random_split(5, ranks, 6), 300000, 2);
  check_sum_in_place(*world, random_split(5, ranks, 6), 300000, 2);
}

TEST(WorldComm, LossySums) {
  check_lossy_sums(*world);
  check_sum_of_infinity(*world);
}

TEST(WorldComm, Gather) {
  for (const Wire wire : kWires)
    for (std::uint64_t seed = 3; seed < 30; ++seed) check_gather(*world, random_counts(ranks, 500, seed), seed, wire);
  check_gather_of_structs(*world);
  check_gather(*world, std::vector<std::size_t>(ranks, 0), 1);
  check_gather(*world, std::vector<std::size_t>(ranks, 100), 2);
  std::vector<std::size_t> counts(ranks, 0);
  counts.back() = 262144 + 5;
  check_gather(*world, counts, 30);
  std::reverse(counts.begin(), counts.end());
  check_gather(*world, counts, 31);
}

TEST(WorldComm, AllToAll) {
  check_all_to_all_shapes(*world, 1 << 20);  // a piece of shared memory
  // Around the lengths from which Open MPI asks the receiver first (4 KB in memory, 64 KB over TCP), and from which on
  // a message goes in pieces (256 KB).
  for (const std::size_t bytes : {4000, 4096, 4200, 65000, 65536, 66000, 262143, 262144, 262145, 524288, 524289})
    check_all_to_all(*world, equal_bytes(ranks, bytes), bytes);
}

// Short and long ones back to back: none may be taken for one of the next call.
TEST(WorldComm, ManyAllToAlls) {
  for (int i = 0; i < 500; ++i) check_all_to_all(*world, random_bytes(ranks, i % 10 == 0 ? 100000 : 16, i), i);
}

TEST(WorldComm, Messages) {
  for (std::uint64_t seed = 0; seed < 3; ++seed) check_messages(*world, seed);
}

TEST(WorldComm, RandomSequences) {
  for (std::uint64_t seed = 0; seed < 3; ++seed) check_random_sequence(*world, 200, 10000 * seed);
}

TEST(WorldComm, Splits) {
  check_split(*world, 1);
  check_split(*world, 2);
}

TEST(WorldComm, CountsWhatItSends) {
  const auto others = static_cast<std::uint64_t>(ranks - 1), rank = static_cast<std::uint64_t>(world->rank());
  const CommCounters before = world->counters();
  check_broadcast(*world, 10, 1);
  check_ordered_sum(*world, even_split(ranks, ranks), 100, 2);
  check_gather(*world, std::vector<std::size_t>(ranks, 9), 3);
  ByteMatrix bytes = equal_bytes(ranks, 7);
  bytes.back().front() = 1100000;  // the last rank's message to the first, in pieces if memory is shared
  check_all_to_all(*world, bytes, 4);
  check_all_to_all(*world, equal_bytes(ranks, 0), 5);
  const CommCounter gather = world->counters().gather - before.gather;
  EXPECT_EQ(gather.calls, 1u);
  EXPECT_EQ(gather.messages, rank == 0 ? 0u : 1u);
  EXPECT_EQ(gather.bytes, rank == 0 ? 0u : 36u);
  // However it is carried: one message to each other rank in each call, empty or not.
  const CommCounter all_to_all = world->counters().all_to_all - before.all_to_all;
  EXPECT_EQ(all_to_all.calls, 2u);
  EXPECT_EQ(all_to_all.messages, 2 * others);
  EXPECT_EQ(all_to_all.bytes, rank == others ? (others - 1) * 7 + 1100000 : others * 7);
}

// Not on nodes of several ranks each: there sums are only compared with their prediction, as they are here, too.
TEST(WorldComm, CountsWhatOneLevelSends) {
  if (node_grid(world->nodes(), world->rank())) GTEST_SKIP() << "ranks on several nodes";
  const auto others = static_cast<std::uint64_t>(ranks - 1), rank = static_cast<std::uint64_t>(world->rank());
  const CommCounters before = world->counters();
  check_broadcast(*world, 10, 1);
  check_ordered_sum(*world, even_split(ranks, ranks), 100, 2);
  const CommCounter broadcast = world->counters().broadcast - before.broadcast;
  const CommCounter sum = world->counters().sum - before.sum;
  EXPECT_EQ(broadcast.calls, 1u);
  EXPECT_EQ(broadcast.messages, rank == 0 ? others : 0);
  EXPECT_EQ(broadcast.bytes, rank == 0 ? others * (share_memory ? 40 : 4096) : 0);  // MPI sends the whole head
  EXPECT_EQ(sum.calls, 1u);
  EXPECT_EQ(sum.messages, others);  // the whole partial for everyone
  EXPECT_EQ(sum.bytes, others * 100 * 4);
  EXPECT_EQ(sum.node_bytes, share_memory ? 0 : sum.bytes);

  // More than two ranks: the others' slices of its partial, then its slice of the sum.
  const CommCounter sums = world->counters().sum;
  check_ordered_sum(*world, even_split(ranks, ranks), 20000, 5);
  const CommCounter large = world->counters().sum - sums;
  const std::uint64_t slice = Slices{20000, ranks}.size(world->rank());
  EXPECT_EQ(large.messages, ranks > 2 ? 2 * others : others);
  EXPECT_EQ(large.bytes, (ranks > 2 ? 20000 - slice + slice * others : 20000) * 4);
}

}  // namespace
}  // namespace foe

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  foe::ranks = std::atoi(argv[1]);
  foe::share_memory = std::string(argv[2]) == "shared";
  foe::ranks_are_threads = false;
  foe::world = foe::make_world_comm({.share_memory = foe::share_memory});
  GTEST_FLAG_SET(brief, foe::world->rank() != 0);  // one rank's progress is enough; failures of all are shown
  GTEST_FLAG_SET(fail_fast, true);                 // after a failure the ranks may no longer be in step
  testing::InitGoogleTest(&argc, argv);
  const int status = RUN_ALL_TESTS();
  if (status != 0) foe::abort_world(status);
  foe::world.reset();
  return status;
}
