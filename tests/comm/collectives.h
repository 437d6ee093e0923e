// Checks that any Communicator has to pass, for tests over threads (local_comm_test.cc) and over processes
// (dist/comm_mpi.cc). All ranks call each check with the same arguments.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "comm/communicator.h"

namespace foe {

// Who owns which terms of a sum: offsets as SumPlan takes them.
using Split = std::vector<int>;

inline Split even_split(int leaves, int ranks) {
  Split begin;
  for (int rank = 0; rank <= ranks; ++rank) begin.push_back(leaves * rank / ranks);
  return begin;
}

// Any shares, none at all among them.
inline Split random_split(int leaves, int ranks, std::uint64_t seed) {
  Split begin = {0};
  for (int rank = 1; rank < ranks; ++rank) begin.push_back(static_cast<int>(random_bits(seed, rank) % (leaves + 1)));
  begin.push_back(leaves);
  std::sort(begin.begin(), begin.end());
  return begin;
}

// Element i of a term: of either sign and of very different sizes, so that another order of adding gives other bits.
inline float term_element(std::uint64_t seed, int term, std::size_t i) {
  const std::uint64_t r = random_bits(seed + 1000 * term, i);
  const auto exponent = static_cast<std::uint32_t>(115 + (r >> 32) % 24);
  return std::bit_cast<float>((static_cast<std::uint32_t>(r) & 0x807fffffu) | exponent << 23);
}

// The sum of the terms in [begin, begin + size), a power of two, of which there are `leaves`: the definition.
inline std::vector<float> tree_sum(std::uint64_t seed, int leaves, int begin, int size, std::size_t count) {
  std::vector<float> sum(count);
  if (size == 1) {
    for (std::size_t i = 0; i < count; ++i) sum[i] = term_element(seed, begin, i);
    return sum;
  }
  sum = tree_sum(seed, leaves, begin, size / 2, count);
  if (begin + size / 2 >= leaves) return sum;  // nothing there: none of our terms is -0, so adding +0 changes nothing
  const auto right = tree_sum(seed, leaves, begin + size / 2, size / 2, count);
  for (std::size_t i = 0; i < count; ++i) sum[i] += right[i];
  return sum;
}

// ordered_sum gives the bits of the definition, whoever owns what: so all ranks agree, and with one rank too.
inline void check_ordered_sum(Communicator& comm, const Split& begin, std::size_t count, std::uint64_t seed) {
  const int rank = comm.rank(), leaves = begin.back(), own = begin[rank + 1] - begin[rank];
  std::vector<float> terms(std::max(1, own) * count);
  for (int term = 0; term < own; ++term)
    for (std::size_t i = 0; i < count; ++i) terms[term * count + i] = term_element(seed, begin[rank] + term, i);
  comm.ordered_sum(SumPlan(begin), terms.data(), count);
  const auto expected =
      tree_sum(seed, leaves, 0, static_cast<int>(std::bit_ceil(static_cast<unsigned>(leaves))), count);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), terms.begin()))
      << "rank " << rank << " of " << comm.size() << ": " << leaves << " terms of " << count;
}

inline std::vector<std::int32_t> random_message(std::size_t length, std::uint64_t seed) {
  std::vector<std::int32_t> message(length);
  for (std::size_t i = 0; i < length; ++i) message[i] = static_cast<std::int32_t>(random_bits(seed, i));
  return message;
}

// broadcast replaces whatever the others had.
inline void check_broadcast(Communicator& comm, std::size_t length, std::uint64_t seed) {
  const auto expected = random_message(length, seed);
  auto message = comm.rank() == 0 ? expected : random_message(seed % 100, seed + comm.rank());
  comm.broadcast(message);
  EXPECT_TRUE(message == expected) << "rank " << comm.rank() << " of " << comm.size() << ": " << length << " words";
}

// gather puts everyone's floats one after the other on rank 0, and touches nothing on the others.
inline void check_gather(Communicator& comm, const std::vector<std::size_t>& counts, std::uint64_t seed) {
  std::vector<float> send, expected;
  for (int rank = 0; rank < comm.size(); ++rank)
    for (std::size_t i = 0; i < counts[rank]; ++i) {
      expected.push_back(term_element(seed, rank, i));
      if (rank == comm.rank()) send.push_back(expected.back());
    }
  std::vector<float> out(comm.rank() == 0 ? expected.size() : 0);
  comm.gather(send, counts, out.data());
  if (comm.rank() == 0) {
    EXPECT_TRUE(out == expected) << "gathered " << expected.size() << " floats";
  }
}

inline std::vector<std::size_t> random_counts(int ranks, std::size_t largest, std::uint64_t seed) {
  std::vector<std::size_t> counts(ranks);
  for (int rank = 0; rank < ranks; ++rank)
    counts[rank] = random_bits(seed, rank) % 3 == 0 ? 0 : random_bits(seed, rank + ranks) % (largest + 1);
  return counts;
}

// Collectives of all kinds and sizes in one random order, each rank dawdling when it pleases: what shakes out a rank
// that writes what another has not read yet.
inline void check_random_sequence(Communicator& comm, int steps, std::uint64_t seed) {
  const int ranks = comm.size();
  for (int step = 0; step < steps; ++step) {
    const auto random = [&](int salt) { return random_bits(seed + step, salt); };
    const std::uint64_t dawdle = random_bits(seed + step, 100 + comm.rank());
    if (dawdle % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(dawdle % 300));
    if (dawdle % 8 == 1) std::this_thread::yield();
    // Mostly short, sometimes past the size from which sums are cut in slices, now and then in several pieces.
    const std::size_t largest = random(0) % 50 == 0 ? 300000 : random(0) % 5 == 0 ? 20000 : 300;
    const std::size_t size = random(1) % (largest + 1);
    switch (random(2) % 4) {
      case 0:
        check_broadcast(comm, size, seed + step);
        break;
      case 1:
        check_gather(comm, random_counts(ranks, largest, seed + step), seed + step);
        break;
      default: {
        const int leaves = 1 + static_cast<int>(random(3) % 13);
        check_ordered_sum(comm, random_split(leaves, ranks, seed + step), size, seed + step);
      }
    }
  }
}

}  // namespace foe
