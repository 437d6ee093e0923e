// Collectives over a piece of memory that all ranks see: threads of one process (local_comm.cc) or processes of one
// node (mpi_world.cc). Each rank has a slot with two halves, used in turn; a rank that has entered collective n has
// finished reading collective n - 1, so whoever has seen all ranks enter n - 1 may write the half that n uses. What is
// longer than a half goes in pieces, each a collective of its own.
//
// Terms that stand in memory which all see (term_memory.h) are not copied: in one collective each rank says where its
// terms are, then adds its slice of everyone's and writes it into everyone's memory; nobody else looks at that slice
// there. A second one ends when all have done so.
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
  // Bytes of the memory that `size` ranks share; it must be zero before the first of them is made.
  static std::size_t memory_bytes(int size);

  // `memory` is aligned like an AlignedBuffer and outlives this. `on_destroy` runs last in the destructor (to release
  // what holds the memory). `nodes` is what ranks that share memory may pretend to be on.
  SharedComm(int rank, std::vector<int> nodes, std::byte* memory, double timeout_seconds,
             std::function<void()> on_destroy);
  ~SharedComm() override;

  void do_broadcast(std::vector<std::int32_t>& message) override;
  void do_sum(const SumPlan& plan, float* partials, std::size_t count, Wire wire) override;
  TermBuffer do_allocate_terms(std::size_t floats) override;
  void do_gather(std::span<const std::byte> send, std::span<const std::size_t> bytes, std::byte* out) override;
  void do_all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                     std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override;

  // The two steps of a sum in slices, of which rank r gets the r-th; ranks past the last slice get none. Collective.
  // First the plan's sums of this rank's slice, one right behind the other, from everyone's partials (vectors of
  // slices.count floats). With one sum it may be written to where that slice of the first partial stands.
  void reduce_scatter(const SumPlan& plan, const float* partials, const Slices& slices, Wire wire, float* sums);
  // Then all receive the others' slices of x.
  void all_gather(float* x, const Slices& slices, Wire wire);

 private:
  struct alignas(64) Header {
    std::atomic<unsigned> written;   // the last collective that the rank has entered, and what it sends stands there
    std::atomic<unsigned> sleepers;  // who wait for the next one
    std::atomic<unsigned> gone;      // its Communicator was destroyed
    // Of a sum in place: the collective that begins it, the allocation, and where in that the rank's terms stand.
    unsigned opened;
    unsigned allocation;
    std::size_t place;
  };
  struct Allocation {
    unsigned number;
    std::weak_ptr<TermMemory> memory;
  };

  Header& header(int rank) const;
  void enter();         // begins the next collective: my half of the slot may be written after it
  void publish();       // says that this rank has done this collective's part
  void wait(int peer);  // until that one has
  template <typename Ready>
  void wait_until(const Ready& ready, Header& theirs, int peer);
  void wait_for_all();
  std::byte* half(int rank) const;       // the half of a rank's slot that this collective uses
  std::size_t* lengths(int rank) const;  // behind it: of a rank's messages in an all-to-all
  void write(Wire wire, const float* x, std::size_t n, std::byte* to);
  // What holds x, if that is memory which all see and the wire is f32: with that, sums are done in place.
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
  // Sums in place count as if they were copied.
  void count_scatter(const SumPlan& plan, const Slices& slices, Wire wire);
  void count_gather(const Slices& slices, Wire wire);
  void write_piece(std::span<const std::byte> send, std::span<const std::size_t> send_bytes, std::size_t at);
  std::size_t read_lengths(std::span<std::size_t> receive_bytes);
  void read_piece(std::byte* receive, std::span<const std::size_t> receive_bytes, std::size_t at);

  std::byte* memory_;
  std::function<void()> on_destroy_;
  unsigned step_ = 0;
  EncodedSum sum_;
  std::vector<Allocation> allocations_;
  unsigned allocated_ = 0;                 // how often
  std::vector<float*> terms_;              // of a sum in place: everyone's, by rank
  std::vector<std::byte> encoded_;         // on its way to the half
  std::vector<std::size_t> stream_begin_;  // of the all-to-all that is going on: see read_lengths()
};

}  // namespace foe
