#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "collectives.h"
#include "ranks.h"

namespace foe {
namespace {

using testing::HasSubstr;

void expect_counter(const CommCounter& counter, std::uint64_t calls, std::uint64_t messages, std::uint64_t bytes) {
  EXPECT_EQ(counter.calls, calls);
  EXPECT_EQ(counter.messages, messages);
  EXPECT_EQ(counter.bytes, bytes);
}

TEST(SelfComm, DoesWhatOneRankDoes) {
  const auto comm = make_self_comm();
  EXPECT_EQ(comm->rank(), 0);
  EXPECT_EQ(comm->size(), 1);
  check_broadcast(*comm, 1000, 1);
  for (int leaves = 1; leaves <= 13; ++leaves) check_ordered_sum(*comm, {0, leaves}, 100, leaves);
  check_lossy_sum(*comm, {0, 5}, 100, 1, Wire::kInt8);
  check_gather(*comm, {17}, 2);
  check_gather_of_structs(*comm);
  check_gather(*comm, {17}, 2, Wire::kBF16);
  check_all_to_all_shapes(*comm, 1000);
  check_random_sequence(*comm, 50, 3);
}

// Whatever was split off before: a rank that is alone in an exchange says how long it has waited.
TEST(Communicator, ATimeoutHoldsInAllThatWasSplitOff) {
  for (const std::vector<int>& nodes : {std::vector<int>{0, 0}, std::vector<int>{0, 1}, std::vector<int>{0, 0, 1, 1}})
    run_ranks(nodes, kTimeout, [&](Communicator& comm) {
      EXPECT_EQ(comm.timeout(), kTimeout);
      const auto part = comm.split(comm.rank() / 2, 0);
      meet(comm);
      comm.set_timeout(0.25);
      EXPECT_EQ(part->timeout(), 0.25);
      if (comm.rank() == 0) {
        std::vector<std::int32_t> message(1);
        try {
          part->broadcast(message);
          meet(*part);
          ADD_FAILURE() << "nobody else is there";
        } catch (const Error& error) {
          EXPECT_THAT(error.what(), testing::HasSubstr("for 0.25 s: it died, "));
        }
      }
      comm.set_timeout(kTimeout);
      meet(comm);
    });
}

TEST(SelfComm, SendsNothing) {
  const auto comm = make_self_comm();
  check_broadcast(*comm, 10, 1);
  check_ordered_sum(*comm, {0, 3}, 10, 2);
  check_ordered_sum(*comm, {0, 3}, 10, 3);
  check_gather(*comm, {10}, 4);
  check_all_to_all(*comm, {{10}}, 5);
  expect_counter(comm->counters().broadcast, 1, 0, 0);
  expect_counter(comm->counters().sum, 2, 0, 0);
  expect_counter(comm->counters().gather, 1, 0, 0);
  expect_counter(comm->counters().all_to_all, 1, 0, 0);
}

TEST(SelfComm, Splits) {
  const auto comm = make_self_comm();
  check_split(*comm, 1);
}

class LocalComm : public testing::TestWithParam<int> {};  // the number of ranks
INSTANTIATE_TEST_SUITE_P(Ranks, LocalComm, testing::Range(1, 9),
                         [](const auto& ranks) { return std::to_string(ranks.param); });

TEST_P(LocalComm, Splits) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    check_split(comm, 1);
    check_split(comm, 2);
  });
}

TEST_P(LocalComm, KnowsItsRanks) {
  std::atomic<int> sum = 0;
  run_ranks(GetParam(), kTimeout, [&](Communicator& comm) {
    EXPECT_EQ(comm.size(), GetParam());
    sum += comm.rank();
  });
  EXPECT_EQ(sum, GetParam() * (GetParam() - 1) / 2);
}

TEST_P(LocalComm, Broadcast) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    // The last ones fill a piece of 1 MB exactly, exceed it by one word, and take three.
    for (const std::size_t length : {0, 1, 1000, 0, 262143, 262144, 700000, 3}) check_broadcast(comm, length, length);
  });
}

TEST_P(LocalComm, OrderedSumOfAnySplit) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    for (int leaves = 1; leaves <= 13; ++leaves)
      for (const std::size_t count : {0, 1, 7, 100}) {
        check_ordered_sum(comm, even_split(leaves, comm.size()), count, leaves);
        check_sum_in_place(comm, even_split(leaves, comm.size()), count, leaves);
        for (std::uint64_t seed = 1; seed < 4; ++seed)
          check_ordered_sum(comm, random_split(leaves, comm.size(), seed * 100 + leaves), count, seed);
      }
  });
}

// Below, at and past the size from which each rank adds one slice (32 KB), and in several pieces.
TEST_P(LocalComm, OrderedSumOfAnyLength) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    for (const int leaves : {1, 8, 13})
      for (const std::size_t count : {8191, 8192, 8193}) {
        check_ordered_sum(comm, even_split(leaves, comm.size()), count, leaves);
        check_sum_in_place(comm, even_split(leaves, comm.size()), count, leaves);
        check_ordered_sum(comm, random_split(leaves, comm.size(), leaves), count, leaves);
        check_sum_in_place(comm, random_split(leaves, comm.size(), leaves), count, leaves);
      }
    check_ordered_sum(comm, even_split(4, comm.size()), 300000, 1);
    check_sum_in_place(comm, even_split(4, comm.size()), 300000, 1);
    check_ordered_sum(comm, random_split(5, comm.size(), 6), 300000, 2);
    check_sum_in_place(comm, random_split(5, comm.size(), 6), 300000, 2);
  });
}

TEST_P(LocalComm, LossySums) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    check_lossy_sums(comm);
    check_sum_of_infinity(comm);
  });
}

TEST_P(LocalComm, Gather) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    const int ranks = comm.size();
    for (const Wire wire : kWires)
      for (std::uint64_t seed = 3; seed < 30; ++seed) check_gather(comm, random_counts(ranks, 500, seed), seed, wire);
    check_gather_of_structs(comm);
    check_gather(comm, std::vector<std::size_t>(ranks, 0), 1);
    check_gather(comm, std::vector<std::size_t>(ranks, 100), 2);
    // Only the last rank has something, and more than one piece of it; then only the first has.
    std::vector<std::size_t> counts(ranks, 0);
    counts.back() = 262144 + 5;
    check_gather(comm, counts, 30);
    std::reverse(counts.begin(), counts.end());
    check_gather(comm, counts, 31);
  });
}

TEST_P(LocalComm, AllToAll) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) { check_all_to_all_shapes(comm, 1 << 20); });
}

TEST_P(LocalComm, Messages) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) { check_messages(comm, 1); });
}

TEST_P(LocalComm, RandomSequences) {
  for (std::uint64_t seed = 0; seed < 2; ++seed)
    run_ranks(GetParam(), kTimeout, [&](Communicator& comm) { check_random_sequence(comm, 200, 10000 * seed); });
}

// Back to back, without a moment in between: the fastest rank is as far ahead as it may be.
TEST_P(LocalComm, ManyShortSums) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    for (int i = 0; i < 500; ++i) check_ordered_sum(comm, even_split(comm.size(), comm.size()), 4, i);
  });
}

TEST_P(LocalComm, ManyShortAllToAlls) {
  run_ranks(GetParam(), kTimeout, [](Communicator& comm) {
    for (int i = 0; i < 500; ++i) check_all_to_all(comm, random_bytes(comm.size(), 16, i), i);
  });
}

TEST_P(LocalComm, CountsWhatItSends) {
  const auto ranks = static_cast<std::uint64_t>(GetParam());
  run_ranks(GetParam(), kTimeout, [&](Communicator& comm) {
    const auto rank = static_cast<std::uint64_t>(comm.rank());
    const bool root = rank == 0;
    const CommCounters& counters = comm.counters();
    check_broadcast(comm, 10, 1);
    expect_counter(counters.broadcast, 1, root ? ranks - 1 : 0, root ? (ranks - 1) * 10 * 4 : 0);
    check_broadcast(comm, 300000, 2);
    expect_counter(counters.broadcast, 2, root ? 2 * (ranks - 1) : 0, root ? (ranks - 1) * 300010 * 4 : 0);

    // Two terms each and no slices: one partial to every other rank.
    check_ordered_sum(comm, even_split(2 * GetParam(), GetParam()), 100, 3);
    expect_counter(counters.sum, 1, ranks - 1, (ranks - 1) * 100 * 4);
    CommCounter before = counters.sum;
    check_ordered_sum(comm, even_split(2 * GetParam(), GetParam()), 0, 4);
    expect_counter(counters.sum - before, 1, 0, 0);
    // In slices: the others' slices of one partial, and its own slice of the sum to every other rank. Two ranks gain
    // nothing by it.
    before = counters.sum;
    const std::uint64_t count = 20000, slice = Slices{count, GetParam()}.size(comm.rank());
    check_ordered_sum(comm, even_split(GetParam(), GetParam()), count, 5);
    if (ranks > 2)
      expect_counter(counters.sum - before, 1, 2 * (ranks - 1), ((count - slice) + slice * (ranks - 1)) * 4);
    else
      expect_counter(counters.sum - before, 1, ranks - 1, (ranks - 1) * count * 4);
    // The first rank owns everything: nobody else has a partial to send.
    before = counters.sum;
    Split first_owns_all(GetParam() + 1, 3);
    first_owns_all[0] = 0;
    check_ordered_sum(comm, first_owns_all, 10, 6);
    expect_counter(counters.sum - before, 1, ranks - 1, root ? (ranks - 1) * 10 * 4 : 0);

    // Encoded bytes; pieces do not count.
    before = counters.sum;
    check_ordered_sum(comm, even_split(GetParam(), GetParam()), 1000000, 5);
    EXPECT_EQ((counters.sum - before).messages, (ranks > 2 ? 2 : 1) * (ranks - 1));
    before = counters.sum;
    check_lossy_sum(comm, even_split(GetParam(), GetParam()), 100, 5, Wire::kInt8);
    expect_counter(counters.sum - before, 1, ranks - 1, (ranks - 1) * (100 + 2 * 4));
    before = counters.sum;
    check_lossy_sum(comm, even_split(GetParam(), GetParam()), count, 5, Wire::kBF16);
    EXPECT_EQ((counters.sum - before).bytes,
              ranks > 2 ? ((count - slice) + slice * (ranks - 1)) * 2 : (ranks - 1) * count * 2);

    check_gather(comm, std::vector<std::size_t>(ranks, 9), 7);
    expect_counter(counters.gather, 1, root ? 0 : 1, root ? 0 : 9 * 4);
    check_gather(comm, std::vector<std::size_t>(ranks, 9), 7, Wire::kBF16);
    expect_counter(counters.gather, 2, root ? 0 : 2, root ? 0 : 9 * 6);

    // What it sends to itself does not count; empty messages do, and pieces do not.
    check_all_to_all(comm, equal_bytes(GetParam(), 9), 8);
    expect_counter(counters.all_to_all, 1, ranks - 1, (ranks - 1) * 9);
    check_all_to_all(comm, equal_bytes(GetParam(), 0), 9);
    expect_counter(counters.all_to_all, 2, 2 * (ranks - 1), (ranks - 1) * 9);
    before = counters.all_to_all;
    ByteMatrix to_last = equal_bytes(GetParam(), 0);
    for (auto& row : to_last) row.back() = 1100000;
    check_all_to_all(comm, to_last, 10);
    expect_counter(counters.all_to_all - before, 1, ranks - 1, rank == ranks - 1 ? 0 : 1100000);
  });
}

// A rank that has done its part may leave at once: the others still finish.
TEST_P(LocalComm, LastCollectiveSurvivesEarlyLeavers) {
  for (int trial = 0; trial < 6; ++trial)
    for (const std::size_t count : {10, 10000})
      run_ranks(GetParam(), kTimeout, [&](Communicator& comm) {
        if (trial % 2 && comm.rank() == trial % comm.size()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        check_ordered_sum(comm, even_split(comm.size(), comm.size()), count, trial);
      });
  for (int trial = 0; trial < 6; ++trial)
    for (const std::size_t bytes : {1000, 500000})
      run_ranks(GetParam(), kTimeout, [&](Communicator& comm) {
        if (trial % 2 && comm.rank() == trial % comm.size()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        check_all_to_all(comm, random_bytes(comm.size(), bytes, trial), trial);
      });
}

using Collective = std::function<void(Communicator&)>;

// An all-to-all of `bytes` between any two.
void exchange(Communicator& comm, std::size_t bytes) {
  const std::vector<std::byte> send(comm.size() * bytes);
  std::vector<std::byte> receive(send.size());
  std::vector<std::size_t> received(comm.size());
  comm.all_to_all(send, std::vector<std::size_t>(comm.size(), bytes), receive, received);
}

// One of each kind, a sum in slices, and an all-to-all in pieces.
const std::vector<Collective>& collectives() {
  static const std::vector<Collective> all = {
      [](Communicator& comm) {
        std::vector<std::int32_t> message(5);
        comm.broadcast(message);
      },
      [](Communicator& comm) {
        std::vector<float> terms(100, 1.0f);
        comm.ordered_sum(SumPlan(even_split(comm.size(), comm.size())), terms.data(), terms.size());
      },
      [](Communicator& comm) {
        std::vector<float> terms(20000, 1.0f);
        comm.ordered_sum(SumPlan(even_split(comm.size(), comm.size())), terms.data(), terms.size());
      },
      [](Communicator& comm) {
        std::vector<float> out(comm.size());
        comm.gather(std::vector<float>{1.0f}, std::vector<std::size_t>(comm.size(), 1), out.data());
      },
      [](Communicator& comm) {
        std::vector<std::byte> message;
        for (int peer = 0; peer < comm.size(); ++peer)
          if (peer != comm.rank()) comm.send(peer, std::vector<std::byte>(10));
        for (int peer = 0; peer < comm.size(); ++peer)
          if (peer != comm.rank()) comm.receive(peer, 10, message);
      },
      [](Communicator& comm) { exchange(comm, 10); },
      [](Communicator& comm) { exchange(comm, 600000); }};
  return all;
}

// Runs the collective again and again until it throws: a rank that only sends may get through once or twice.
std::string error_of(const Collective& collective, Communicator& comm) {
  try {
    for (int i = 0; i < 4; ++i) collective(comm);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(LocalCommFailure, ARankThatLeavesFailsTheOthers) {
  for (const Collective& collective : collectives())
    for (int leaver = 0; leaver < 3; ++leaver)
      for (const int before : {0, 1, 2})  // collectives that it still takes part in
        run_ranks(3, kTimeout, [&](Communicator& comm) {
          for (int i = 0; i < before; ++i) collective(comm);
          if (comm.rank() == leaver) return;
          EXPECT_THAT(error_of(collective, comm), HasSubstr("left the job"));
        });
}

TEST(LocalCommFailure, ARankThatFallsSilentFailsTheOthers) {
  for (const Collective& collective : collectives()) {
    std::atomic<int> failed = 0;
    run_ranks(3, 0.3, [&](Communicator& comm) {
      collective(comm);
      if (comm.rank() == 1) {
        while (failed < 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        return;
      }
      // Whoever fails first leaves, and the other may hear of that first.
      const std::string error = error_of(collective, comm);
      EXPECT_THAT(error, testing::AnyOf(HasSubstr("heard nothing from rank 1 for 0.3 s"), HasSubstr("left the job")));
      ++failed;
    });
  }
}

TEST(LocalCommFailure, TheErrorNamesBothRanks) {
  run_ranks(2, 0.3, [&](Communicator& comm) {
    if (comm.rank() == 1) return;
    EXPECT_EQ(error_of(collectives()[1], comm), "rank 0 in a sum: rank 1 left the job");
  });
}

TEST(LocalCommDeathTest, ArgumentsMustFit) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto comms = make_local_comms(2);
  float value = 0;
  EXPECT_DEATH(comms[0]->ordered_sum(SumPlan({0, 1}), &value, 1), "a plan for 1 ranks on 2");
  EXPECT_DEATH(comms[1]->gather({&value, 1}, std::vector<std::size_t>{1, 2}, &value, Wire::kF32),
               "1 floats, announced 2");
  EXPECT_DEATH(comms[1]->gather({&value, 1}, std::vector<std::size_t>{1, 2}, &value), "4 bytes, announced 8");
  const std::vector<std::byte> bytes(3);
  std::vector<std::byte> room(2);
  std::vector<std::size_t> lengths(2);
  const auto all_to_all = [&](Communicator& comm, const std::vector<std::size_t>& send_bytes) {
    comm.all_to_all(bytes, send_bytes, room, lengths);
  };
  EXPECT_DEATH(all_to_all(*comms[0], {3}), "1 and 2 lengths for 2 ranks");
  EXPECT_DEATH(all_to_all(*comms[0], {1, 1}), "3 bytes, announced 2");
  lengths.resize(1);
  EXPECT_DEATH(all_to_all(*make_self_comm(), {3}), "3 bytes to receive, room for 2");
}

// What another rank sends is input.
TEST(LocalComm, MessagesThatDoNotFitAreAnError) {
  for (const std::vector<int>& nodes : {std::vector<int>{0, 0}, std::vector<int>{0, 1}})
    run_ranks(nodes, kTimeout, [](Communicator& comm) {
      std::vector<std::byte> receive(3);
      std::vector<std::size_t> received(2);
      try {
        comm.all_to_all(std::vector<std::byte>(4), std::vector<std::size_t>{2, 2}, receive, received);
        ADD_FAILURE() << "4 bytes fit into 3";
      } catch (const Error& error) {
        EXPECT_EQ(std::string(error.what()),
                  "rank " + std::to_string(comm.rank()) +
                      " in an all-to-all: rank 1 sends 2 bytes, expected at most 1, of 3 from"
                      " all ranks");
      }
    });
}

}  // namespace
}  // namespace foe
