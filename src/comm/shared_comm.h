// The Communicator of ranks that share memory: threads of one process (local_comm.cc) or processes of one node
// (mpi_world.cc). Each rank has a slot with two halves, which collectives use in turn. A rank that has entered
// collective n has finished reading collective n - 1, so a rank that has seen all others enter n - 1 may write the half
// that collective n uses. What is longer than a half goes in pieces, each of which is a collective of its own.
//
// Terms in memory that all ranks see (term_memory.h) are not copied into slots. In a first collective each rank says
// where its terms are, adds its slice of everyone's terms, and writes the result into everyone's memory, where no other
// rank uses that slice. A second collective ends when all ranks have done so.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "comm/communicator.h"
#include "comm/encoded_sum.h"
#include "comm/term_memory.h"

namespace foe {

inline constexpr std::size_t kHalfBytes = std::size_t{1} << 20;

class SharedComm : public Communicator {
 public:
  // Returns how many bytes of memory `size` ranks share.
  static std::size_t memory_bytes(int size);

  // Makes that memory ready. To be called once, before the first SharedComm on it is made.
  static void clear(std::byte* memory, int size);

  // `memory` must be aligned like an AlignedBuffer and outlive this. `on_destroy` runs last in the destructor and may
  // release the memory. `nodes` has the node of each rank: ranks that share memory may pretend to be on several.
  SharedComm(int rank, std::vector<int> nodes, std::byte* memory, double timeout_seconds,
             std::function<void()> on_destroy);
  ~SharedComm() override;

  void do_broadcast(std::vector<std::int32_t>& message) override;
  void do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) override;
  TermBuffer do_allocate_terms(std::size_t floats) override;
  void do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) override;
  void do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                     std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override;

  // The two steps of a sum in slices, both collective. Rank r gets slice r; ranks beyond the last slice get none.
  // reduce_scatter() adds this rank's slice of everyone's partials, which are vectors of slices.count floats, and
  // writes the plan's sums of it to `sums`, one right after the other. If the plan has one sum, `sums` may be where
  // that slice of this rank's first partial is.
  void reduce_scatter(const SumPlan& plan, const float* partials, const Slices& slices, Wire wire, float* sums);
  // all_gather() gives every rank the other ranks' slices of x.
  void all_gather(float* x, const Slices& slices, Wire wire);

 protected:
  // Throw RankLost because `peer` has left the job, or has been silent until the timeout.
  [[noreturn]] void throw_gone(int peer) const;
  [[noreturn]] void throw_silent(int peer) const;

 private:
  struct alignas(64) Header {
    std::atomic<unsigned> written;   // the last collective for which what the rank sends is in its slot
    std::atomic<unsigned> sleepers;  // how many ranks sleep until `written` changes
    std::atomic<unsigned> gone;      // whether the rank's Communicator was destroyed
    // For a sum in place: the collective that begins it, the allocation, and where in it the rank's terms are.
    unsigned opened;
    unsigned allocation;
    std::size_t place;
  };
  struct Allocation {
    unsigned number;
    std::weak_ptr<TermMemory> memory;
  };

  Header& header(int rank) const;
  void enter();         // begins the next collective; afterwards this rank may write its half of the slot
  void publish();       // says that this rank's half is written
  void wait(int peer);  // waits until that rank's half is written
  template <typename Ready>
  void wait_until(const Ready& ready, Header& theirs, int peer);
  void wait_for_all();
  std::byte* half(int rank) const;       // returns the half of a rank's slot that this collective uses
  std::size_t* lengths(int rank) const;  // after the half: how long a rank's messages in an all-to-all are
  void write(Wire wire, const float* x, std::size_t n, std::byte* to);
  // The allocation that x is in, if all ranks see it and the wire is f32. Only then a sum is done in place.
  struct Held {
    std::shared_ptr<const TermMemory> memory;
    unsigned allocation = 0;
    std::size_t place = 0;
  };
  Held held(const float* x, Wire wire) const;
  void sum_in_place(const SumPlan& plan, const Held& own, std::size_t count);
  void open_terms(const SumPlan& plan, const Held& own, std::size_t count);
  void add_terms(const SumPlan& plan, std::size_t count, std::size_t begin, std::size_t n, float* sums,
                 std::size_t stride);
  void spread(const float* sum, std::size_t begin, std::size_t n);
  void close_terms();
  void sum_whole(const SumPlan& plan, float* partials, std::size_t count, Wire wire);
  void reduce_copies(const SumPlan& plan, const float* partials, const Slices& slices, Wire wire, float* sums);
  void gather_copies(float* x, const Slices& slices, Wire wire);
  // Sums in place count as if their terms were copied.
  void count_scatter(const SumPlan& plan, const Slices& slices, Wire wire);
  void count_gather(const Slices& slices, Wire wire);
  void write_piece(std::span<const std::byte> send, std::span<const std::size_t> send_bytes, std::size_t at);
  std::size_t read_lengths(std::span<std::size_t> receive_bytes);
  void read_piece(std::byte* receive, std::span<const std::size_t> receive_bytes, std::size_t at);

  std::byte* memory_;
  std::function<void()> on_destroy_;
  int spins_;
  unsigned step_ = 0;
  EncodedSum sum_;
  std::vector<Allocation> allocations_;
  unsigned allocated_ = 0;                 // how many allocations there have been
  std::vector<float*> terms_;              // everyone's terms of a sum in place, by rank
  std::vector<std::byte> encoded_;         // what is copied to the half next
  std::vector<std::size_t> stream_begin_;  // of the current all-to-all, see read_lengths()
};

}  // namespace foe
