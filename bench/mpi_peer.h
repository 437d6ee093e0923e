// MPI's own collectives over the same ranks, with which benchmarks compare those of comm/. All are collective.
#pragma once

#include <cstddef>
#include <span>

namespace foe {

// Whether MPI is running. The other functions require it.
bool mpi_runs();

// Replaces x by its sum over all ranks, added in an order that MPI chooses.
void mpi_all_reduce(std::span<float> x);
// Sends the r-th of equal parts of `send` to rank r; `receive` gets one part from each rank, in their order.
void mpi_all_to_all(std::span<const float> send, std::span<float> receive);
// Replaces x of every rank by that of rank 0.
void mpi_broadcast(std::span<float> x);

}  // namespace foe
