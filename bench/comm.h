// Each collective alone, by size, beside MPI's own.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace foe {

struct CommPoint {
  std::string collective;
  std::size_t bytes;  // of the vector that is summed or broadcast; of the message from one rank to another
  int repetitions;    // of each of the two
  // Seconds of a call on its slowest rank: medians, and the tenth and ninetieth percentile. `mpi` is 0 without MPI.
  double ours, ours_low, ours_high;
  double mpi, mpi_low, mpi_high;
  // Bytes of f32 that rank 0's node has to send at least over its link, whoever implements it; on one node, that rank 0
  // has to send.
  double least_bytes;
  // Bytes of f32 that all ranks of one node together have to read at least of each other's memory; 0 on several nodes.
  double read_bytes;
};

// Bytes/s that as many threads as there are ranks, but not more than there are cores, read from memory. Rank 0, while
// the others wait for it.
double memory_limit(const Communicator& comm);

// Collective. Ours, with sums over that wire, and MPI's take turns; every call starts with all ranks together.
std::vector<CommPoint> bench_comm(Communicator& comm, const std::vector<std::size_t>& sizes, Wire wire,
                                  double seconds_per_point, const std::function<void(const CommPoint&)>& progress);

}  // namespace foe
