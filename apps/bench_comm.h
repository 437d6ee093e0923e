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
};

// Collective. Ours, with sums over that wire, and MPI's take turns; every call starts with all ranks together.
std::vector<CommPoint> bench_comm(Communicator& comm, const std::vector<std::size_t>& sizes, Wire wire,
                                  double seconds_per_point, const std::function<void(const CommPoint&)>& progress);

}  // namespace foe
