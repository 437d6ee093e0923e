// Communication between the ranks of one job.
//
// Every call but send() and receive() is collective: all ranks make the same calls in the same order, each from one
// thread (the engine's). After a broadcast or a sum all ranks hold identical bits, whatever the wire, because a rank
// rounds what it keeps like what it sends. A rank alone sends nothing and rounds nothing. A call throws RankLost, an
// Error (rank_lost.h), if a peer has died, or has been silent for longer than the timeout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "comm/sum_plan.h"
#include "kernels/formats/wire_format.h"

namespace foe {

// What this rank has sent: the calls that it took part in, and the messages and payload bytes that it handed to other
// ranks, in the encoding of the wire. In shared memory they count once for each rank that reads them. A message that
// goes in pieces counts as one. An all-to-all counts one message to each other rank, even if it is empty, as its
// receiver has to be told; a rank's message to itself does not count.
struct CommCounter {
  std::uint64_t calls = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t node_bytes = 0;  // those of `bytes` that went to ranks on other nodes
  double seconds = 0;            // spent in these calls
  // The part of `seconds` that was spent waiting for other ranks. MPI reports a message when all of it has come, so the
  // wait for its sender and the time on the way cannot be told apart: across nodes all time counts as moving data, and
  // this is 0.
  double waiting_s = 0;

  CommCounter operator-(const CommCounter& o) const {
    return {calls - o.calls,           messages - o.messages, bytes - o.bytes,
            node_bytes - o.node_bytes, seconds - o.seconds,   waiting_s - o.waiting_s};
  }
  CommCounter operator+(const CommCounter& o) const {
    return {calls + o.calls,           messages + o.messages, bytes + o.bytes,
            node_bytes + o.node_bytes, seconds + o.seconds,   waiting_s + o.waiting_s};
  }
};

struct CommCounters {
  CommCounter broadcast;
  CommCounter sum;
  CommCounter gather;
  CommCounter all_to_all;
  CommCounter send;  // send(), and the calls and the time of receive()

  CommCounter total() const { return broadcast + sum + gather + all_to_all + send; }
  CommCounters operator-(const CommCounters& o) const {
    return {broadcast - o.broadcast, sum - o.sum, gather - o.gather, all_to_all - o.all_to_all, send - o.send};
  }
  CommCounters operator+(const CommCounters& o) const {
    return {broadcast + o.broadcast, sum + o.sum, gather + o.gather, all_to_all + o.all_to_all, send + o.send};
  }
};

// Over several nodes a broadcast's first message has so many words: its length and its beginning. For a decode step
// that is all of it, so one exchange is enough.
inline constexpr std::size_t kBroadcastHead = 1024;

// Owns floats from Communicator::allocate_terms(). It may outlive the Communicator.
struct TermBuffer {
  std::shared_ptr<float> floats;  // aligned like an AlignedBuffer
  std::size_t count = 0;

  float* data() const { return floats.get(); }
  std::size_t size() const { return count; }
};

class Communicator {
 public:
  // `nodes` has the node of each rank.
  Communicator(int rank, std::vector<int> nodes);
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // The node of each rank. Nodes are numbered in the order of their first ranks. Ranks of one node share memory.
  const std::vector<int>& nodes() const { return nodes_; }

  // The limit of every wait for a peer, in seconds. It holds for all communicators that have been or will be split off
  // this one, too.
  double timeout() const { return counters_->timeout_s; }
  void set_timeout(double seconds) { counters_->timeout_s = seconds; }

  // Returns a communicator of the ranks that pass the same colour, ordered by their keys and, if these are equal, by
  // their ranks here; null for a negative colour. It adds to the counters of this one, and must be destroyed before it.
  std::unique_ptr<Communicator> split(int color, int key);

  // Replaces the message of every rank by that of rank 0, of any length. The other ranks wait for it until the timeout.
  void broadcast(std::vector<std::int32_t>& message);

  // Adds the terms of all ranks in the order of the plan's tree. `terms` holds this rank's terms, one vector of `count`
  // floats after the other, and must have room for at least one. On return terms[0 .. count) is the sum over all ranks;
  // the rest is undefined. Over several nodes `wire` is the encoding between them, while the ranks of one node exchange
  // f32. Each partial sum is rounded once on its way, and the sum once more if it is done in slices (sums_in_slices).
  void ordered_sum(const SumPlan& plan, float* terms, std::size_t count, Wire wire = Wire::kF32);
  // The same for a rank that has already added its terms to partial sums (SumPlan::partial).
  void sum_partials(const SumPlan& plan, float* partials, std::size_t count, Wire wire = Wire::kF32);

  // Allocates memory for this rank's terms of sums: `floats` of them, not initialised. In a sum over f32 whose terms
  // lie in memory from one such call, the ranks of a node read each other's terms in place, without copying them first.
  // The terms of a sum must be in such memory on all ranks or on none.
  TermBuffer allocate_terms(std::size_t floats);

  // Rank 0 receives everyone's values, byte by byte, in the order of the ranks; counts[r] is the number that rank r
  // sends. `out` is used on rank 0 only and must have room for all.
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void gather(std::span<const std::type_identity_t<T>> send, std::span<const std::size_t> counts, T* out) {
    std::vector<std::size_t> bytes(counts.begin(), counts.end());
    for (std::size_t& n : bytes) n *= sizeof(T);
    gather_bytes(std::as_bytes(send), bytes, reinterpret_cast<std::byte*>(out));
  }
  // The same for floats that travel as the wire says.
  void gather(std::span<const float> send, std::span<const std::size_t> counts, float* out, Wire wire);

  // Sends one message from each rank to each, itself included, of any length and possibly empty. Receivers need not
  // know the lengths beforehand. `send` holds this rank's messages in the order of their receivers, send_bytes[r] bytes
  // for rank r. On return `receive` holds the messages to this rank in the order of their senders, one right after the
  // other, and receive_bytes[r] is the length of the message from rank r. `receive` must have room for all messages,
  // and must not overlap `send`. Throws Error if a message does not fit.
  void all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                  std::span<std::byte> receive, std::span<std::size_t> receive_bytes);

  // Passes a message to one other rank, which has to receive it. It returns at once. The message goes on while this
  // rank waits in any call, and while it computes, if it calls progress() now and then. Messages between two ranks
  // arrive in the order in which they were sent. A communicator with such messages on the way must not be used for
  // all-to-alls: split one off.
  void send(int peer, std::vector<std::byte> message);
  // Waits for the next message from `peer`. Throws Error if it does not have so many bytes.
  void receive(int peer, std::size_t bytes, std::vector<std::byte>& message);
  // Lets messages go on that have been sent and not yet taken. Costs next to nothing if there are none.
  virtual void progress() {}
  // Waits until all have been taken: before this is destroyed, if nothing else says so.
  virtual void flush() {}

  const CommCounters& counters() const { return *counters_; }
  // Sets the counters back to an earlier state, so that exchanges about the counters themselves are not counted.
  void restore_counters(const CommCounters& counters) { static_cast<CommCounters&>(*counters_) = counters; }

  // The parts of the functions above that differ between backends; communicators that are made of others call them,
  // too. Arguments have been checked. None of these functions counts a call. do_broadcast() and do_sum() count the
  // messages and bytes that they send; for the others their caller does.
  virtual void do_broadcast(std::vector<std::int32_t>& message) = 0;
  // `partials` are this rank's partial sums of its terms. count > 0.
  virtual void do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) = 0;
  virtual TermBuffer do_allocate_terms(std::size_t floats);
  virtual void do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) = 0;
  virtual void do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                             std::span<std::byte> receive, std::span<std::size_t> receive_bytes) = 0;
  virtual void do_send(int peer, std::vector<std::byte> message) = 0;
  virtual void do_receive(int peer, std::size_t bytes, std::vector<std::byte>& message) = 0;

 protected:
  // Returns a communicator of the ranks `part_ranks` of this one, in this order. All ranks call this, each with ranks
  // that include itself. `color` tells communicators apart that are made by the same call.
  virtual std::unique_ptr<Communicator> make_part(std::span<const int> part_ranks, int color) = 0;

  // Returns the communicators that this one is made of. Null pointers are skipped.
  virtual std::vector<Communicator*> levels() { return {}; }
  // From now on, levels() add to this one's counters.
  void count_levels();
  static std::unique_ptr<Communicator> part_of(Communicator& whole, std::span<const int> part_ranks, int color) {
    return whole.make_part(part_ranks, color);
  }
  // Throws Error if the messages that other ranks announce do not fit into `room` bytes: what a peer sends is input.
  void check_room(std::span<const std::size_t> receive_bytes, std::size_t room) const;
  // Throws Error because the next message from `peer` does not have so many bytes.
  [[noreturn]] void refuse_message(int peer, std::size_t bytes, std::size_t got) const;
  // Counts one message to another rank.
  void count_message(CommCounter& counter, int peer, std::size_t bytes) const;

  // What a communicator shares with all that are split off it.
  struct Counters : CommCounters {
    double waited_s = 0;          // the time spent waiting for other ranks, in all calls
    const char* collective = "";  // the name of the last call, for error messages
    double timeout_s = 60;
    // Lets messages go on that were sent, and returns whether there are any; null if none ever were. Whoever waits for
    // something else in the meantime has to call it.
    std::function<bool()> push_messages;
  };
  std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
  const int rank_;
  const int size_;

 private:
  class Call;

  void gather_bytes(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out);
  void count_and_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out);
  void check_lengths(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                     std::span<const std::size_t> receive_bytes) const;

  std::vector<int> nodes_;
  // Of the current gather: its lengths by rank and, if floats are encoded, what it sends and receives.
  std::vector<std::size_t> gather_lengths_;
  std::vector<std::byte> gather_, gathered_;
};

// Collective. All ranks return at nearly the same time, so that what follows can be measured.
void meet(Communicator& comm);

// Returns the communicator of a rank that is alone.
std::unique_ptr<Communicator> make_self_comm();

// Returns communicators for `size` ranks that are threads of this process; the thread of rank r uses the r-th.
// `timeout_seconds` is the limit of every wait for a peer. If one is destroyed while others wait for it, these throw
// Error.
std::vector<std::unique_ptr<Communicator>> make_local_comms(int size, double timeout_seconds = 60);

// The same for ranks that pretend to be on several nodes, nodes[r] being that of rank r. They exchange as they would
// over a network.
std::vector<std::unique_ptr<Communicator>> make_local_comms(const std::vector<int>& nodes, double timeout_seconds = 60);

struct WorldOptions {
  double timeout_seconds = 60;  // the limit of every wait for a peer
  // Whether ranks that are all on one node exchange through shared memory. If not, MPI carries everything, which is a
  // way to run the code for several nodes on one machine.
  bool share_memory = true;
};

// Returns how many processes this one's launcher (such as mpirun) says that it has started; 1 without a launcher.
int processes_of_launcher();

// Returns the communicator of all ranks that mpirun started, or of one rank alone if this process was not started by
// mpirun. Calls MPI_Init; its destructor calls MPI_Finalize, except during an exception: then abort_world() has to
// follow. Throws Error if a launcher that this MPI does not understand has started several processes, because each of
// them would be a rank alone.
std::unique_ptr<Communicator> make_world_comm(const WorldOptions& options = {});

// Ends all ranks of the MPI job at once with this exit status. Returns only if there is no MPI job.
void abort_world(int status);

}  // namespace foe
