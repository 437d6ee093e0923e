// The Communicator over MPI: between nodes, or between processes as if each were on a node of its own. MPI only carries
// messages; sums are added here, in the order of their plan. Only mpi_*.cc may include this, so that nothing else
// depends on MPI.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <mpi.h>
#include <vector>

#include "comm/communicator.h"
#include "comm/encoded_sum.h"

namespace foe {

// Throws Error with MPI's own message unless `status` says that the call succeeded.
void check_mpi(int status, const char* call);

// Returns false once an exchange has failed. Then MPI_Finalize must not be called, as it would wait for the rest of the
// exchange.
bool mpi_is_usable();

// Messages from one rank to another (Communicator::send), in mpi_messages.cc. They go in pieces that are short enough
// for MPI to send at once, whether or not their receiver waits for them: a longer one would wait for an answer of the
// receiver, which the sender does not see while it computes.
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

class MpiComm : public Communicator {
 public:
  // `on_destroy` runs last in the destructor.
  MpiComm(MPI_Comm comm, int rank, std::vector<int> nodes, const WorldOptions& options,
          std::function<void()> on_destroy);
  ~MpiComm() override;

  void do_broadcast(std::vector<std::int32_t>& message) override;
  void do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) override;
  void do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) override;
  void do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                     std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override;
  void do_send(int peer, std::vector<std::byte> message) override;
  void do_receive(int peer, std::size_t bytes, std::vector<std::byte>& message) override;
  void progress() override { messages_.progress(); }
  void flush() override { messages_.flush(rank_, timeout()); }

 protected:
  std::unique_ptr<Communicator> make_part(std::span<const int> part_ranks, int color) override;

 private:
  void sum_whole(const SumPlan& plan, float* partials, std::size_t count, Wire wire);
  void start_piece(const SumPlan& plan, const float* partials, std::size_t count, Wire wire, std::size_t piece);
  void reduce_scatter(const SumPlan& plan, float* partials, const Slices& slices, Wire wire);
  void all_gather(float* x, const Slices& slices, Wire wire);
  // A message of an all-to-all to another rank.
  struct Outgoing {
    int peer;
    std::span<const std::byte> rest;      // the part that has not begun to travel
    std::size_t bytes;                    // the length of the whole message
    std::array<MPI_Request, 8> requests;  // the pieces that are on their way
  };
  struct Incoming {
    bool announced = false, in_pieces = false;
    MPI_Message handle = MPI_MESSAGE_NULL;
  };
  void start_sends(std::span<const std::byte> send, std::span<const std::size_t> send_bytes, std::size_t own_at);
  bool send_more(Outgoing& message);
  void probe(int peer, std::size_t& bytes);
  void start_receptions(int peer, std::span<std::byte> to);
  void require_usable() const;
  void wait(MPI_Request& request, const char* what);
  template <typename Ready>
  void wait_until(const char* what, Ready&& ready);

  MPI_Comm comm_;
  WorldOptions options_;
  std::function<void()> on_destroy_;
  EncodedSum sum_;
  MpiMessages messages_;
  std::vector<std::int32_t> head_;                                        // the first part of a broadcast
  std::vector<std::byte> send_, receive_;                                 // as large as the largest sum so far
  std::vector<int> send_counts_, send_at_, receive_counts_, receive_at_;  // in bytes, by rank
  std::vector<Outgoing> outgoing_;                                        // of an all-to-all, to each other rank
  std::vector<Incoming> incoming_;                                        // by rank
  std::vector<MPI_Request> receptions_;
  std::vector<MPI_Request> piece_requests_;  // of a sum
};

// Returns a Communicator of the ranks of `comm`, over shared memory if all are on one node.
std::unique_ptr<Communicator> make_comm(MPI_Comm comm, const WorldOptions& options, std::function<void()> on_destroy);

// Does what Communicator::make_part() says.
std::unique_ptr<Communicator> make_part_of(MPI_Comm comm, std::span<const int> part_ranks, int color,
                                           const WorldOptions& options);

}  // namespace foe
