#include <algorithm>
#include <utility>

#include "comm/mpi_comm.h"
#include "comm/mpi_wait.h"

namespace foe {
namespace {

constexpr int kSentTag = 4;                                     // all-to-alls have 1 to 3
constexpr std::size_t kSentPieceBytes = std::size_t{60} << 10;  // Open MPI's limit over TCP is 64 KiB, with its header

// Calls f(begin, bytes) for each piece of a message; an empty one has a piece, too.
template <typename F>
void for_each_piece(std::size_t bytes, const F& f) {
  for (std::size_t at = 0; at == 0 || at < bytes; at += kSentPieceBytes)
    f(at, static_cast<int>(std::min(kSentPieceBytes, bytes - at)));
}

}  // namespace

void MpiMessages::send(int peer, std::vector<std::byte> message) {
  Sent& sent = sent_.emplace_back(Sent{peer, std::move(message), {}});
  for_each_piece(sent.message.size(), [&](std::size_t at, int bytes) {
    check_mpi(MPI_Isend(sent.message.data() + at, bytes, MPI_BYTE, peer, kSentTag, comm_, &sent.pieces.emplace_back()),
              "MPI_Isend");
  });
  progress();
}

std::size_t MpiMessages::receive(int peer, std::vector<std::byte>& message, int rank, double timeout_s) {
  std::vector<MPI_Request> pieces;
  for_each_piece(message.size(), [&](std::size_t at, int bytes) {
    check_mpi(MPI_Irecv(message.data() + at, bytes, MPI_BYTE, peer, kSentTag, comm_, &pieces.emplace_back()),
              "MPI_Irecv");
  });
  std::vector<MPI_Status> statuses(pieces.size());
  wait_for_mpi(rank, timeout_s, "a message", [&] {
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(pieces.size()), pieces.data(), &done, statuses.data()), "MPI_Testall");
    if (done == 0) progress();
    return done != 0;
  });
  std::size_t received = 0;
  for (const MPI_Status& status : statuses) {
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    received += static_cast<std::size_t>(bytes);
  }
  return received;
}

bool MpiMessages::progress() {
  while (!sent_.empty()) {
    Sent& first = sent_.front();
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(first.pieces.size()), first.pieces.data(), &done, MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done == 0) return true;
    sent_.pop_front();
  }
  return false;
}

void MpiMessages::flush(int rank, double timeout_s) {
  if (sent_.empty()) return;
  wait_for_mpi(rank, timeout_s, "a message", [&] { return !progress(); });
}

}  // namespace foe
