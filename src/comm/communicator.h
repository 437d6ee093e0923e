// What the ranks of one job say to each other.
//
// Every call is collective: all ranks make the same calls in the same order, from one thread each (the engine's). After
// a call all ranks that received hold identical bits, whatever the wire: what a rank keeps to itself is rounded as what
// it sends. A rank alone sends nothing, and rounds nothing. A peer that died or went silent past the timeout is an
// Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/sum_plan.h"
#include "kernels/formats/wire_format.h"

namespace foe {

// What this rank has sent: calls it took part in, messages and payload bytes, as the wire carries them, that it handed
// to other ranks (in shared memory: once for each rank that reads them). What goes in pieces counts as if it went in
// one. An all-to-all counts alike however it is carried: one message to each other rank, an empty one too (its receiver
// has to be told), and its payload; a rank's message to itself is nothing.
struct CommCounter {
  std::uint64_t calls = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t node_bytes = 0;  // of these, to ranks on other nodes
  double seconds = 0;            // in these calls
  // And of that, waiting for other ranks. MPI shows a message when all of it has come, so what its sender kept us
  // waiting and what it took on the way are one time: across nodes it all counts as moving, and this is 0.
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

  CommCounter total() const { return broadcast + sum + gather + all_to_all; }
  CommCounters operator-(const CommCounters& o) const {
    return {broadcast - o.broadcast, sum - o.sum, gather - o.gather, all_to_all - o.all_to_all};
  }
  CommCounters operator+(const CommCounters& o) const {
    return {broadcast + o.broadcast, sum + o.sum, gather + o.gather, all_to_all + o.all_to_all};
  }
};

// Floats from Communicator::allocate_terms(). May outlive the Communicator.
struct TermBuffer {
  std::shared_ptr<float> floats;  // aligned like an AlignedBuffer
  std::size_t count = 0;

  float* data() const { return floats.get(); }
  std::size_t size() const { return count; }
};

class Communicator {
 public:
  // `nodes`: the node of each rank.
  Communicator(int rank, std::vector<int> nodes);
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // The node of each rank, numbered in the order in which ranks bring them up. Ranks of one node share memory.
  const std::vector<int>& nodes() const { return nodes_; }

  // Bounds every wait for a peer: here, and in what is or will be split off.
  double timeout() const { return counters_->timeout_s; }
  void set_timeout(double seconds) { counters_->timeout_s = seconds; }

  // A communicator of those ranks that give the same colour, ordered by their keys and, where these are equal, by their
  // ranks here; null for a negative colour. It counts into this one's counters and must be destroyed before it.
  std::unique_ptr<Communicator> split(int color, int key);

  // Rank 0's message, of any length, replaces everyone's. How long the others wait for it is bounded by the timeout
  // only.
  void broadcast(std::vector<std::int32_t>& message);

  // `terms` holds this rank's terms of the plan, one vector of `count` floats after the other, and room for at least
  // one. On return terms[0 .. count) is the sum over all ranks, in the order of the plan's tree; the rest is undefined.
  // Over several nodes the wire is that between them, and ranks of one node exchange f32. A partial sum is rounded once
  // on its way, and the sum once more if it is done in slices (sums_in_slices).
  void ordered_sum(const SumPlan& plan, float* terms, std::size_t count, Wire wire = Wire::kF32);
  // The same for terms that this rank has added down to its partial sums (SumPlan::partial).
  void sum_partials(const SumPlan& plan, float* partials, std::size_t count, Wire wire = Wire::kF32);

  // Memory for terms of sums, `floats` of this rank's, not initialised. Ranks of a node that sum terms over f32 which
  // lie in memory from the same call, anywhere in it, add them where they stand, without copying them first. A sum has
  // its terms in such memory on all ranks or on none.
  TermBuffer allocate_terms(std::size_t floats);

  // Rank 0 receives everyone's floats, in the order of the ranks; counts[r] is what rank r sends. `out` is used on rank
  // 0 only and has room for all.
  void gather(std::span<const float> send, std::span<const std::size_t> counts, float* out, Wire wire = Wire::kF32);

  // One message from each rank to each, itself included, of any length and possibly empty. Nobody but its sender knows
  // its length beforehand: no exchange of lengths has to come first.
  // `send` holds this rank's messages in the order of their receivers, send_bytes[r] bytes for rank r. `receive` gets
  // the messages to this rank in the order of their senders, one right behind the other, and receive_bytes[r] the
  // length of rank r's. It must have room for all of them (it may have more) and not overlap `send`.
  void all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                  std::span<std::byte> receive, std::span<std::size_t> receive_bytes);

  const CommCounters& counters() const { return *counters_; }
  // Goes back to an earlier count, to leave an exchange about the count itself out of it.
  void restore_counters(const CommCounters& counters) { static_cast<CommCounters&>(*counters_) = counters; }

  // What backends do of the above, and communicators that are made of others use. No call is counted; a broadcast and a
  // sum count what they send, for the others it has been done. The arguments fit.
  virtual void do_broadcast(std::vector<std::int32_t>& message) = 0;
  // `partials`: this rank's terms, added down to its partial sums. count > 0.
  virtual void do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) = 0;
  virtual TermBuffer do_allocate_terms(std::size_t floats);
  virtual void do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) = 0;
  virtual void do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                             std::span<std::byte> receive, std::span<std::size_t> receive_bytes) = 0;

 protected:
  // The ranks `members` of this one, in this order, which includes the calling rank; all ranks call it, each with its
  // own members. `color` tells apart what is made at the same time.
  virtual std::unique_ptr<Communicator> make_part(std::span<const int> members, int color) = 0;

  // The communicators that this one is made of; null ones are skipped.
  virtual std::vector<Communicator*> levels() { return {}; }
  // From now on they count into this one's counters.
  void count_levels();
  static std::unique_ptr<Communicator> part_of(Communicator& whole, std::span<const int> members, int color) {
    return whole.make_part(members, color);
  }
  // Throws Error where the messages that other ranks announce do not fit into `room` bytes: what a peer says is input.
  void check_room(std::span<const std::size_t> receive_bytes, std::size_t room) const;
  // Counts a message to another rank.
  void count_message(CommCounter& counter, int peer, std::size_t bytes) const;

  // What all have in common that were split off one.
  struct Counters : CommCounters {
    double waited_s = 0;          // in all calls, for other ranks
    const char* collective = "";  // the last call, for errors
    double timeout_s = 60;
  };
  std::shared_ptr<Counters> counters_ = std::make_shared<Counters>();
  const int rank_;
  const int size_;

 private:
  class Call;

  void check_lengths(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                     std::span<const std::size_t> receive_bytes) const;

  std::vector<int> nodes_;
  std::vector<std::size_t> gather_bytes_;     // of a gather that is going on, by rank
  std::vector<std::byte> gather_, gathered_;  // what it sends and receives, unless that is f32
};

// Collective. All ranks leave this together, or nearly: to measure what follows.
void meet(Communicator& comm);

// One rank alone.
std::unique_ptr<Communicator> make_self_comm();

// `size` ranks as threads of one process; rank r's thread uses the r-th. `timeout_seconds` bounds every wait for a
// peer. Destroying one of them while others wait makes those fail with an Error.
std::vector<std::unique_ptr<Communicator>> make_local_comms(int size, double timeout_seconds = 60);

// The same for ranks that pretend to be on several nodes, and exchange as they would there: nodes[r] is rank r's.
std::vector<std::unique_ptr<Communicator>> make_local_comms(const std::vector<int>& nodes, double timeout_seconds = 60);

struct WorldOptions {
  double timeout_seconds = 60;  // bounds every wait for a peer
  // Whether ranks that are all on one node exchange through shared memory. If not, MPI carries everything, as it does
  // over several nodes: a way to run that path on one machine.
  bool share_memory = true;
};

// How many processes a launcher says that it has started together with this one; 1 without one.
int processes_of_launcher();

// The ranks that mpirun started, or one rank alone if this process was not started by mpirun. Calls MPI_Init, and
// MPI_Finalize when destroyed (but not by an exception: then abort_world() has to follow). Throws Error where a
// launcher that our MPI does not understand has started several, each of which would be alone.
std::unique_ptr<Communicator> make_world_comm(const WorldOptions& options = {});

// Ends all ranks of the MPI job at once with this exit status; returns if there is no job.
void abort_world(int status);

}  // namespace foe
