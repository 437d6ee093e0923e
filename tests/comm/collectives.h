// Checks that any Communicator has to pass, for tests over threads (local_comm_test.cc) and over processes
// (dist/comm_mpi.cc). All ranks call each check with the same arguments.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "comm/communicator.h"
#include "costs/sum_traffic.h"

namespace foe {

// Who owns which terms of a sum, as the offsets that SumPlan takes.
using Split = std::vector<int>;

inline Split even_split(int leaves, int ranks) {
  Split begin;
  for (int rank = 0; rank <= ranks; ++rank) begin.push_back(leaves * rank / ranks);
  return begin;
}

// Returns random shares, some of which may be empty.
inline Split random_split(int leaves, int ranks, std::uint64_t seed) {
  Split begin = {0};
  for (int rank = 1; rank < ranks; ++rank) begin.push_back(static_cast<int>(random_bits(seed, rank) % (leaves + 1)));
  begin.push_back(leaves);
  std::sort(begin.begin(), begin.end());
  return begin;
}

// Returns element i of a term. Elements have both signs and very different magnitudes, so that another order of
// addition gives other bits.
inline float term_element(std::uint64_t seed, int term, std::size_t i) {
  const std::uint64_t r = random_bits(seed + 1000 * term, i);
  const auto exponent = static_cast<std::uint32_t>(115 + (r >> 32) % 24);
  return std::bit_cast<float>((static_cast<std::uint32_t>(r) & 0x807fffffu) | exponent << 23);
}

// Returns the sum of the terms in [begin, begin + size) by definition. `size` is a power of two, and there are `leaves`
// terms in all.
inline std::vector<float> tree_sum(std::uint64_t seed, int leaves, int begin, int size, std::size_t count) {
  std::vector<float> sum(count);
  if (size == 1) {
    for (std::size_t i = 0; i < count; ++i) sum[i] = term_element(seed, begin, i);
    return sum;
  }
  sum = tree_sum(seed, leaves, begin, size / 2, count);
  if (begin + size / 2 >= leaves) return sum;  // there are no terms; as none is -0, adding +0 would change nothing
  const auto right = tree_sum(seed, leaves, begin + size / 2, size / 2, count);
  for (std::size_t i = 0; i < count; ++i) sum[i] += right[i];
  return sum;
}

// Calls ordered_sum(), and checks that it sends what sum_traffic() predicts.
inline void counted_sum(Communicator& comm, const Split& begin, float* terms, std::size_t count,
                        Wire wire = Wire::kF32) {
  const SumPlan plan(begin);
  const CommCounter before = comm.counters().sum;
  comm.ordered_sum(plan, terms, count, wire);
  const CommCounter sent = comm.counters().sum - before;
  EXPECT_EQ(sent.calls, 1u);
  const SumTraffic expected = sum_traffic(plan, comm.nodes(), comm.rank(), count, wire);
  EXPECT_TRUE((expected == SumTraffic{sent.messages, sent.bytes, sent.node_bytes}))
      << "rank " << comm.rank() << " of " << comm.size() << " sent " << sent.messages << " messages, " << sent.bytes
      << " bytes, " << sent.node_bytes << " of them to other nodes; expected " << expected.messages << ", "
      << expected.bytes << ", " << expected.node_bytes;
}

// Checks that ordered_sum() gives the bits of the definition, whoever owns which terms, so that all ranks agree with
// each other and with a single rank. `terms` has room for all terms of this rank, and at least for one.
inline void check_sum_of(Communicator& comm, const Split& begin, std::size_t count, std::uint64_t seed, float* terms) {
  const int rank = comm.rank(), leaves = begin.back(), own = begin[rank + 1] - begin[rank];
  for (int term = 0; term < own; ++term)
    for (std::size_t i = 0; i < count; ++i) terms[term * count + i] = term_element(seed, begin[rank] + term, i);
  counted_sum(comm, begin, terms, count);
  const auto expected =
      tree_sum(seed, leaves, 0, static_cast<int>(std::bit_ceil(static_cast<unsigned>(leaves))), count);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), terms))
      << "rank " << rank << " of " << comm.size() << ": " << leaves << " terms of " << count;
}

inline void check_ordered_sum(Communicator& comm, const Split& begin, std::size_t count, std::uint64_t seed) {
  std::vector<float> terms(std::max(1, begin[comm.rank() + 1] - begin[comm.rank()]) * count);
  check_sum_of(comm, begin, count, seed, terms.data());
}

// The same with terms that the ranks of a node add in place, at another offset on each rank.
inline void check_sum_in_place(Communicator& comm, const Split& begin, std::size_t count, std::uint64_t seed) {
  const std::size_t before = 3 * comm.rank();
  const std::size_t floats = std::max(1, begin[comm.rank() + 1] - begin[comm.rank()]) * count;
  const TermBuffer buffer = comm.allocate_terms(before + floats);
  for (int again = 0; again < 3; ++again) check_sum_of(comm, begin, count, seed + again, buffer.data() + before);
}

inline constexpr Wire kWires[] = {Wire::kF32, Wire::kBF16, Wire::kInt8};

// Returns the largest error of a wire, relative to the value (bf16 has 8 significant bits) or, with int8, to the
// largest magnitude in its block: half a step of 1/127, the roundings in its computation, and one of the value itself.
inline double wire_rounding(Wire wire) {
  constexpr double kUnit = 0x1.0p-24;  // the relative rounding error of f32
  return wire == Wire::kF32 ? 0 : wire == Wire::kBF16 ? 0x1.0p-8 : (0.5 + 127 * 6 * kUnit) / 127 + kUnit;
}

// Checks that a lossy sum gives all ranks the same bits, and that its error is at most that of two roundings of the
// wire (of each partial, and of the sum) and of those of f32. The error is relative to the sum of the terms' magnitudes
// or, with int8, to the sum of their largest magnitudes in each block, which is at least the largest sum in a block.
inline void check_lossy_sum(Communicator& comm, const Split& begin, std::size_t count, std::uint64_t seed, Wire wire) {
  const int rank = comm.rank(), leaves = begin.back(), own = begin[rank + 1] - begin[rank];
  std::vector<float> terms(std::max(1, own) * count);
  std::vector<double> exact(count), magnitude(count);
  for (int term = 0; term < leaves; ++term) {
    double largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const float x = term_element(seed, term, i);
      if (begin[rank] <= term && term < begin[rank + 1]) terms[(term - begin[rank]) * count + i] = x;
      exact[i] += x;
      if (wire != Wire::kInt8)
        magnitude[i] += std::abs(x);
      else {
        largest = i % kWireBlock == 0 ? std::abs(x) : std::max<double>(largest, std::abs(x));
        if (i % kWireBlock + 1 == kWireBlock || i + 1 == count)
          for (std::size_t j = i / kWireBlock * kWireBlock; j <= i; ++j) magnitude[j] += largest;
      }
    }
  }
  counted_sum(comm, begin, terms.data(), count, wire);
  const double rounding = comm.size() == 1 ? 0 : wire_rounding(wire);
  const double part = (1 + rounding) * (1 + rounding) * std::pow(1 + 0x1.0p-24, leaves) - 1;
  for (std::size_t i = 0; i < count; ++i)
    ASSERT_LE(std::abs(terms[i] - exact[i]), part * magnitude[i])
        << to_string(wire) << ", element " << i << " of " << count << ", rank " << rank << " of " << comm.size();
  std::vector<std::int32_t> bits(count), first;
  for (std::size_t i = 0; i < count; ++i) bits[i] = std::bit_cast<std::int32_t>(terms[i]);
  first = bits;
  comm.broadcast(first);
  EXPECT_TRUE(bits == first) << to_string(wire) << ": rank " << rank << " of " << comm.size() << " differs from rank 0";
}

// Checks lossy sums with several shares of the terms, and lengths around those of blocks and slices.
inline void check_lossy_sums(Communicator& comm) {
  for (const Wire wire : kWires) {
    for (const int leaves : {1, 13})
      for (const std::size_t count : {0, 1, 63, 64, 65, 1000, 8191, 8192, 20001}) {
        check_lossy_sum(comm, even_split(leaves, comm.size()), count, leaves, wire);
        check_lossy_sum(comm, random_split(leaves, comm.size(), leaves + count), count, count, wire);
      }
    check_lossy_sum(comm, random_split(4, comm.size(), 1), 300000, 1, wire);  // in pieces of shared memory
  }
  check_lossy_sum(comm, even_split(2, comm.size()), 1100000, 1, Wire::kInt8);
}

// Checks that a value that is not finite is not finite on any rank.
inline void check_sum_of_infinity(Communicator& comm) {
  for (const Wire wire : kWires)
    for (const std::size_t count : {100, 10000}) {
      std::vector<float> terms(count, 1.0f);
      if (comm.rank() == comm.size() - 1) terms[70] = std::numeric_limits<float>::infinity();
      comm.ordered_sum(SumPlan(even_split(comm.size(), comm.size())), terms.data(), count, wire);
      for (std::size_t i = 0; i < count; ++i)
        ASSERT_EQ(std::isfinite(terms[i]), i != 70 && (wire != Wire::kInt8 || comm.size() == 1 || i / 64 != 1)) << i;
    }
}

inline std::vector<std::int32_t> random_message(std::size_t length, std::uint64_t seed) {
  std::vector<std::int32_t> message(length);
  for (std::size_t i = 0; i < length; ++i) message[i] = static_cast<std::int32_t>(random_bits(seed, i));
  return message;
}

// Whether ranks are threads of one process, even where they pretend to be on several nodes.
inline bool ranks_are_threads = true;

// Checks that broadcast() replaces what the other ranks had, and sends what broadcast_traffic() predicts.
inline void check_broadcast(Communicator& comm, std::size_t length, std::uint64_t seed) {
  const auto expected = random_message(length, seed);
  auto message = comm.rank() == 0 ? expected : random_message(seed % 100, seed + comm.rank());
  const CommCounter before = comm.counters().broadcast;
  comm.broadcast(message);
  const CommCounter sent = comm.counters().broadcast - before;
  const SumTraffic predicted = broadcast_traffic(comm.nodes(), comm.rank(), length, ranks_are_threads);
  EXPECT_EQ(sent.messages, predicted.messages);
  EXPECT_EQ(sent.bytes, predicted.bytes);
  EXPECT_EQ(sent.node_bytes, predicted.node_bytes);
  EXPECT_TRUE(message == expected) << "rank " << comm.rank() << " of " << comm.size() << ": " << length << " words";
}

// gather puts everyone's floats, as the wire brings them, one after the other on rank 0, and touches nothing on the
// others.
inline void check_gather(Communicator& comm, const std::vector<std::size_t>& counts, std::uint64_t seed,
                         Wire wire = Wire::kF32) {
  std::vector<float> send, expected;
  for (int rank = 0; rank < comm.size(); ++rank) {
    std::vector<float> part(counts[rank]);
    for (std::size_t i = 0; i < counts[rank]; ++i) part[i] = term_element(seed, rank, i);
    if (rank == comm.rank()) send = part;
    if (comm.size() > 1) {
      std::vector<std::byte> bytes(wire_bytes(wire, part.size()));
      encode(wire, part.data(), part.size(), bytes.data());
      decode(wire, bytes.data(), part.size(), part.data());
    }
    expected.insert(expected.end(), part.begin(), part.end());
  }
  std::vector<float> out(comm.rank() == 0 ? expected.size() : 0);
  comm.gather(send, counts, out.data(), wire);
  if (comm.rank() == 0) {
    EXPECT_TRUE(out == expected) << "gathered " << expected.size() << " floats";
  }
}

// gather brings structs to rank 0 as they are; rank r sends r + 1 of them.
inline void check_gather_of_structs(Communicator& comm) {
  struct Pair {
    std::uint64_t large;
    std::int8_t small;
    bool operator==(const Pair&) const = default;
  };
  std::vector<Pair> send, expected;
  std::vector<std::size_t> counts;
  for (int rank = 0; rank < comm.size(); ++rank) {
    counts.push_back(rank + 1);
    for (int i = 0; i <= rank; ++i) {
      const Pair pair{random_bits(rank, i), static_cast<std::int8_t>(-rank - i)};
      expected.push_back(pair);
      if (rank == comm.rank()) send.push_back(pair);
    }
  }
  std::vector<Pair> out(comm.rank() == 0 ? expected.size() : 0);
  comm.gather(send, counts, out.data());
  if (comm.rank() == 0) {
    EXPECT_TRUE(out == expected);
  }
}

inline std::vector<std::size_t> random_counts(int ranks, std::size_t largest, std::uint64_t seed) {
  std::vector<std::size_t> counts(ranks);
  for (int rank = 0; rank < ranks; ++rank)
    counts[rank] = random_bits(seed, rank) % 3 == 0 ? 0 : random_bits(seed, rank + ranks) % (largest + 1);
  return counts;
}

// The bytes of an all-to-all: bytes[from][to].
using ByteMatrix = std::vector<std::vector<std::size_t>>;

// Returns the message from one rank to another.
inline std::vector<std::byte> bytes_between(std::uint64_t seed, int from, int to, std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; i += sizeof(std::uint64_t)) {
    const std::uint64_t word = random_bits(seed + 1000 * from + to, i);
    std::memcpy(bytes.data() + i, &word, std::min(sizeof word, size - i));
  }
  return bytes;
}

// Checks that all_to_all() brings every message to its place, returns the lengths, and writes nothing after the
// messages.
inline void check_all_to_all(Communicator& comm, const ByteMatrix& bytes, std::uint64_t seed) {
  constexpr std::size_t kMore = 100;  // bytes that must not be written
  const auto append = [](std::vector<std::byte>& to, const std::vector<std::byte>& what) {
    to.insert(to.end(), what.begin(), what.end());
  };
  std::vector<std::byte> send, expected;
  std::vector<std::size_t> expected_bytes;
  for (int peer = 0; peer < comm.size(); ++peer) {
    append(send, bytes_between(seed, comm.rank(), peer, bytes[comm.rank()][peer]));
    append(expected, bytes_between(seed, peer, comm.rank(), bytes[peer][comm.rank()]));
    expected_bytes.push_back(bytes[peer][comm.rank()]);
  }
  std::vector<std::byte> receive(expected.size() + kMore, std::byte{77});
  expected.resize(receive.size(), std::byte{77});
  std::vector<std::size_t> receive_bytes(comm.size(), 12345);
  comm.all_to_all(send, bytes[comm.rank()], receive, receive_bytes);
  EXPECT_EQ(receive_bytes, expected_bytes) << "rank " << comm.rank() << " of " << comm.size();
  EXPECT_TRUE(receive == expected) << "rank " << comm.rank() << " of " << comm.size() << ": " << send.size()
                                   << " bytes out, " << expected.size() - kMore << " in";
}

inline ByteMatrix equal_bytes(int ranks, std::size_t bytes) {
  return ByteMatrix(ranks, std::vector<std::size_t>(ranks, bytes));
}

// Returns random lengths. Some messages are empty, and some ranks send or receive nothing at all.
inline ByteMatrix random_bytes(int ranks, std::size_t largest, std::uint64_t seed) {
  ByteMatrix bytes;
  for (int from = 0; from < ranks; ++from) {
    bytes.push_back(random_counts(ranks, largest, seed * 100 + from));
    if (random_bits(seed, from) % 8 == 0) bytes.back().assign(ranks, 0);
  }
  if (const int to = static_cast<int>(random_bits(seed, 99) % (2 * ranks)); to < ranks)
    for (auto& row : bytes) row[to] = 0;
  return bytes;
}

// Checks the lengths that matter to a backend: empty messages, one byte, uneven lengths, everything to or from one
// rank, and messages that are as long as a piece of `piece` bytes, one byte more or less, and several pieces.
inline void check_all_to_all_shapes(Communicator& comm, std::size_t piece) {
  const int ranks = comm.size();
  for (const std::size_t bytes : {0, 1, 8, 1000, 0}) check_all_to_all(comm, equal_bytes(ranks, bytes), bytes);
  for (std::uint64_t seed = 0; seed < 40; ++seed) check_all_to_all(comm, random_bytes(ranks, 3000, seed), seed);
  for (int only = 0; only < ranks; ++only) {
    ByteMatrix to_one(ranks, std::vector<std::size_t>(ranks, 0)), from_one = to_one;
    for (int peer = 0; peer < ranks; ++peer) to_one[peer][only] = from_one[only][peer] = 20000 + peer;
    check_all_to_all(comm, to_one, only);
    check_all_to_all(comm, from_one, only);
  }
  for (const std::size_t bytes : {piece - 1, piece, piece + 1, 3 * piece, 3 * piece + 12345}) {
    // One long message from the last rank to the first, among short ones; then a long one from each rank to the next.
    ByteMatrix one_long = random_bytes(ranks, 500, bytes), next = equal_bytes(ranks, 10);
    one_long.back().front() = bytes;
    check_all_to_all(comm, one_long, 1);
    for (int from = 0; from < ranks; ++from) next[from][(from + 1) % ranks] = bytes;
    check_all_to_all(comm, next, 2);
  }
  // Pieces end anywhere in a message.
  check_all_to_all(comm, random_bytes(ranks, piece, 3), 3);
  check_all_to_all(comm, equal_bytes(ranks, piece / 3), 4);
}

// Runs collectives of all kinds and sizes in one random order, in which each rank pauses at random. This finds a rank
// that overwrites what another has not read yet.
inline void check_random_sequence(Communicator& comm, int steps, std::uint64_t seed) {
  const int ranks = comm.size();
  for (int step = 0; step < steps; ++step) {
    const auto random = [&](int salt) { return random_bits(seed + step, salt); };
    const std::uint64_t dawdle = random_bits(seed + step, 100 + comm.rank());
    if (dawdle % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(dawdle % 300));
    if (dawdle % 8 == 1) std::this_thread::yield();
    // Most are short, some are longer than the size from which sums are cut in slices, and a few take several pieces.
    const std::size_t largest = random(0) % 50 == 0 ? 300000 : random(0) % 5 == 0 ? 20000 : 300;
    const std::size_t size = random(1) % (largest + 1);
    switch (random(2) % 6) {
      case 0:
        check_broadcast(comm, size, seed + step);
        break;
      case 1:
        check_gather(comm, random_counts(ranks, largest, seed + step), seed + step, kWires[random(4) % 3]);
        break;
      case 2:
      case 3:
        check_all_to_all(comm, random_bytes(ranks, largest, seed + step), seed + step);
        break;
      default: {
        const int leaves = 1 + static_cast<int>(random(3) % 13);
        const Wire wire = kWires[random(4) % 3];
        const Split begin = random_split(leaves, ranks, seed + step);
        if (wire == Wire::kF32)
          check_ordered_sum(comm, begin, size, seed + step);
        else
          check_lossy_sum(comm, begin, size, seed + step, wire);
      }
    }
  }
}

// Checks that messages between all pairs of ranks arrive, in the order in which they were sent, empty ones and long
// ones among them, and that they are counted once.
inline void check_messages(Communicator& comm, std::uint64_t seed) {
  const std::size_t lengths[] = {0, 1, 61439, 61440, 61441, 7, 400000};
  const std::unique_ptr<Communicator> part = comm.split(0, comm.rank());
  const CommCounter before = comm.counters().send;
  std::uint64_t peers = 0, bytes = 0;
  for (const std::size_t length : lengths)
    for (int peer = 0; peer < comm.size(); ++peer)
      if (peer != comm.rank()) {
        part->send(peer, bytes_between(seed + length, comm.rank(), peer, length));
        bytes += length;
        ++peers;
      }
  part->progress();
  std::vector<std::byte> message;
  for (const std::size_t length : lengths)
    for (int peer = 0; peer < comm.size(); ++peer)
      if (peer != comm.rank()) {
        part->receive(peer, length, message);
        EXPECT_TRUE(message == bytes_between(seed + length, peer, comm.rank(), length)) << length << " bytes";
      }
  part->flush();
  const CommCounter sent = comm.counters().send - before;
  EXPECT_EQ(sent.calls, 2 * peers);
  EXPECT_EQ(sent.messages, peers);
  EXPECT_EQ(sent.bytes, bytes);
}

// Checks split(). Every third rank is left out. The others are split by parity, in descending order, and each part once
// more. The parts work at the same time, and their calls are counted by the whole communicator.
inline void check_split(Communicator& comm, std::uint64_t seed) {
  const int rank = comm.rank();
  const auto colour = [](int r) { return r % 3 == 2 ? -1 : r % 2; };
  const CommCounters before = comm.counters();
  const std::unique_ptr<Communicator> part = comm.split(colour(rank), -rank);
  EXPECT_EQ(comm.counters().total().calls, before.total().calls) << "making it is nothing that a plan predicts";
  std::vector<int> members;
  for (int r = comm.size() - 1; r >= 0; --r)
    if (colour(r) == colour(rank)) members.push_back(r);
  ASSERT_EQ(part == nullptr, colour(rank) < 0);
  if (!part) return;
  ASSERT_EQ(part->size(), static_cast<int>(members.size()));
  EXPECT_EQ(members[part->rank()], rank);
  EXPECT_EQ(part->nodes().size(), members.size());
  check_ordered_sum(*part, even_split(7, part->size()), 100, seed + colour(rank));
  check_random_sequence(*part, 30 + 5 * colour(rank), seed + colour(rank));
  const std::unique_ptr<Communicator> half = part->split(part->rank() < 2 ? 0 : 1, 0);
  EXPECT_EQ(half->rank(), part->rank() < 2 ? part->rank() : part->rank() - 2);
  const std::uint64_t sums = comm.counters().sum.calls;
  check_ordered_sum(*half, even_split(3, half->size()), 100, seed);
  EXPECT_EQ(comm.counters().sum.calls, sums + 1);
}

}  // namespace foe
