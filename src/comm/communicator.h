// What the ranks of one job say to each other.
//
// Every call is collective: all ranks make the same calls in the same order, from one thread each (the engine's). After
// a call all ranks that received hold identical bits. A peer that died or went silent past the timeout is an Error.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/sum_plan.h"

namespace foe {

// What this rank has sent: calls it took part in, messages and payload bytes it handed to other ranks (in shared
// memory: once for each rank that reads them). An all-to-all counts alike however it is carried: one message to each
// other rank, an empty one too (its receiver has to be told), and its payload; a rank's message to itself is nothing.
struct CommCounter {
  std::uint64_t calls = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  double seconds = 0;    // in these calls,
  double waiting_s = 0;  // and of that, waiting for other ranks. MPI does not tell: across nodes it is 0

  CommCounter operator-(const CommCounter& o) const {
    return {calls - o.calls, messages - o.messages, bytes - o.bytes, seconds - o.seconds, waiting_s - o.waiting_s};
  }
  CommCounter operator+(const CommCounter& o) const {
    return {calls + o.calls, messages + o.messages, bytes + o.bytes, seconds + o.seconds, waiting_s + o.waiting_s};
  }
};

struct CommCounters {
  CommCounter broadcast;
  CommCounter sum;
  CommCounter gather;
  CommCounter all_to_all;

  CommCounter total() const { return broadcast + sum + gather + all_to_all; }
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // The node of each rank, numbered in the order in which ranks bring them up. Ranks of one node share memory.
  virtual std::vector<int> nodes() const { return std::vector<int>(size()); }

  // A communicator of those ranks that give the same colour, ordered by their keys and, where these are equal, by their
  // ranks here; null for a negative colour. It counts into this one's counters and must be destroyed before it.
  std::unique_ptr<Communicator> split(int color, int key);

  // Rank 0's message, of any length, replaces everyone's. How long the others wait for it is bounded by the timeout
  // only.
  virtual void broadcast(std::vector<std::int32_t>& message) = 0;

  // `terms` holds this rank's terms of the plan, one vector of `count` floats after the other, and room for at least
  // one. On return terms[0 .. count) is the sum over all ranks, in the order of the plan's tree; the rest is undefined.
  virtual void ordered_sum(const SumPlan& plan, float* terms, std::size_t count) = 0;

  // Rank 0 receives everyone's floats, in the order of the ranks; counts[r] is what rank r sends. `out` is used on rank
  // 0 only and has room for all.
  virtual void gather(std::span<const float> send, std::span<const std::size_t> counts, float* out) = 0;

  // One message from each rank to each, itself included, of any length and possibly empty. Nobody but its sender knows
  // its length beforehand: no exchange of lengths has to come first.
  // `send` holds this rank's messages in the order of their receivers, send_bytes[r] bytes for rank r. `receive` gets
  // the messages to this rank in the order of their senders, one right behind the other, and receive_bytes[r] the
  // length of rank r's. It must have room for all of them (it may have more) and not overlap `send`.
  virtual void all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                          std::span<std::byte> receive, std::span<std::size_t> receive_bytes) = 0;

  const CommCounters& counters() const { return *counters_; }
  // Goes back to an earlier count, to leave an exchange about the count itself out of it.
  void restore_counters(const CommCounters& counters) { *counters_ = counters; }

 protected:
  // Counts a call, and its time until the end of the scope.
  class Call {
   public:
    Call(const Communicator& comm, CommCounter& counter);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    const Communicator& comm_;
    CommCounter& counter_;
    std::chrono::steady_clock::time_point start_;
    double waited_before_;
  };

  // What every backend does first in an all-to-all: checks what goes out, and counts it.
  void begin_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                        std::span<const std::size_t> receive_bytes);

  // The ranks `members` of this one, in this order, which includes the calling rank; all ranks call it, each with its
  // own members. `color` tells apart what is made at the same time.
  virtual std::unique_ptr<Communicator> make_part(std::span<const int> members, int color) = 0;

  std::shared_ptr<CommCounters> counters_ = std::make_shared<CommCounters>();
  double waited_s_ = 0;  // in all calls, for other ranks
};

// One rank alone.
std::unique_ptr<Communicator> make_self_comm();

// `size` ranks as threads of one process; rank r's thread uses the r-th. `timeout_seconds` bounds every wait for a
// peer. Destroying one of them while others wait makes those fail with an Error.
std::vector<std::unique_ptr<Communicator>> make_local_comms(int size, double timeout_seconds = 60);

struct WorldOptions {
  double timeout_seconds = 60;  // bounds every wait for a peer
  // Whether ranks that are all on one node exchange through shared memory. If not, MPI carries everything, as it does
  // over several nodes: a way to run that path on one machine.
  bool share_memory = true;
};

// The ranks that mpirun started, or one rank alone if this process was not started by mpirun. Calls MPI_Init, and
// MPI_Finalize when destroyed (but not by an exception: then abort_world() has to follow).
std::unique_ptr<Communicator> make_world_comm(const WorldOptions& options = {});

// Ends all ranks of the MPI job at once with this exit status; returns if there is no job.
void abort_world(int status);

}  // namespace foe
