#include "bench/mpi_peer.h"

#include <mpi.h>

#include "base/check.h"

namespace foe {

bool mpi_runs() {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  return initialised && !finalised;
}

void mpi_all_reduce(std::span<float> x) {
  const int status =
      MPI_Allreduce(MPI_IN_PLACE, x.data(), static_cast<int>(x.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  FOE_CHECK(status == MPI_SUCCESS, "MPI_Allreduce: {}", status);
}

void mpi_all_to_all(std::span<const float> send, std::span<float> receive) {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int block = static_cast<int>(send.size()) / ranks;
  const int status = MPI_Alltoall(send.data(), block, MPI_FLOAT, receive.data(), block, MPI_FLOAT, MPI_COMM_WORLD);
  FOE_CHECK(status == MPI_SUCCESS, "MPI_Alltoall: {}", status);
}

void mpi_broadcast(std::span<float> x) {
  const int status = MPI_Bcast(x.data(), static_cast<int>(x.size()), MPI_FLOAT, 0, MPI_COMM_WORLD);
  FOE_CHECK(status == MPI_SUCCESS, "MPI_Bcast: {}", status);
}

}  // namespace foe
