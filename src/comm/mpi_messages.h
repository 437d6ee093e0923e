// Messages between two ranks over MPI (Communicator::send). They go in pieces that are short enough for MPI to send at
// once, whether or not their receiver waits for them: a longer one would wait for an answer of the receiver, which the
// sender does not see while it computes.
#pragma once

#include <cstddef>
#include <deque>
#include <mpi.h>
#include <vector>

namespace foe {

class MpiMessages {
 public:
  // `comm` is that of the ranks, which may have no other messages with this one's tag.
  explicit MpiMessages(MPI_Comm comm) : comm_(comm) {}

  void send(int peer, std::vector<std::byte> message);
  // Returns the length of the message that has come, which is `message` if it has its size. Throws RankLost after the
  // timeout; `rank` is this rank's number for the message.
  std::size_t receive(int peer, std::vector<std::byte>& message, int rank, double timeout_s);
  // Gives MPI the time to send what is on the way, and forgets what has been sent. Returns whether anything is left.
  bool progress();
  // Waits until all has been sent. Throws RankLost after the timeout.
  void flush(int rank, double timeout_s);
  // Who has to take the oldest message that has not been sent; -1 if all have.
  int waits_for() const { return sent_.empty() ? -1 : sent_.front().peer; }

 private:
  struct Sent {
    int peer;
    std::vector<std::byte> message;
    std::vector<MPI_Request> pieces;
  };

  MPI_Comm comm_;
  std::deque<Sent> sent_;  // MPI reads from it until all pieces have been sent
};

}  // namespace foe
