// MPI's own collectives over the same ranks, to measure ours beside.
#pragma once

#include <cstddef>
#include <span>

namespace foe {

// Whether MPI runs: only then may the others be called, by all ranks.
bool mpi_runs();

// x = the sum over all ranks, in MPI's order.
void mpi_all_reduce(std::span<float> x);
// Equal blocks: the r-th part of `send` goes to rank r, `receive` gets the ranks' parts in order.
void mpi_all_to_all(std::span<const float> send, std::span<float> receive);
// Rank 0's data replaces everyone's.
void mpi_broadcast(std::span<float> x);

}  // namespace foe
