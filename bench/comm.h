// Measures each collective alone, by size, and compares it with MPI's own.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace foe {

struct CommPoint {
  std::string collective;
  std::size_t bytes;  // of the vector that is summed or broadcast, or of the message from one rank to another
  int repetitions;    // of ours and of MPI's
  // Seconds of a call on its slowest rank: the median, the 10th and the 90th percentile. Those of MPI are 0 without
  // MPI.
  double ours, ours_low, ours_high;
  double mpi, mpi_low, mpi_high;
  // The least bytes of f32 that rank 0's node has to send over its link, in any implementation; on one node, the least
  // that rank 0 has to send.
  double least_bytes;
  // The least bytes of f32 that all ranks of one node together have to read of each other's memory; 0 on several nodes.
  double read_bytes;
};

// Returns the bytes/s that as many threads as there are ranks, but at most as many as there are cores, read from
// memory. To be called by rank 0 while the others wait for it.
double memory_limit(const Communicator& comm);

// Collective. Our collectives, whose sums use `wire`, and MPI's take turns. Before each call the ranks meet. Calls
// `progress` with each point on rank 0, and returns all points, whose times are valid on rank 0 only.
std::vector<CommPoint> bench_comm(Communicator& comm, const std::vector<std::size_t>& sizes, Wire wire,
                                  double seconds_per_point, const std::function<void(const CommPoint&)>& progress);

}  // namespace foe
