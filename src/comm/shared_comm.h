// Collectives over a piece of memory that all ranks see: threads of one process (local_comm.cc) or processes of one
// node (mpi_comm.cc). Each rank has a slot with two halves, used in turn; a rank that has entered collective n has
// finished reading collective n - 1, so whoever has seen all ranks enter n - 1 may write the half that n uses.
#pragma once

#include <atomic>
#include <functional>

#include "base/aligned.h"
#include "comm/communicator.h"

namespace foe {

class SharedComm : public Communicator {
 public:
  // Bytes of the memory that `size` ranks share; it must be zero before the first of them is made.
  static std::size_t memory_bytes(int size);

  // `memory` is aligned like an AlignedBuffer and outlives this. `on_destroy` runs last in the destructor (to release
  // what holds the memory).
  SharedComm(int rank, int size, std::byte* memory, double timeout_seconds, std::function<void()> on_destroy);
  ~SharedComm() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void broadcast(std::vector<std::int32_t>& message) override;
  void ordered_sum(const SumPlan& plan, float* terms, std::size_t count) override;
  void gather(std::span<const float> send, std::span<const std::size_t> counts, float* out) override;

 private:
  struct Flag;
  struct Header;

  void enter();              // begins the next collective: my half of the slot may be written after it
  void publish(Flag& flag);  // says that this rank has done this collective's part
  void wait(Flag& flag, unsigned step, int peer);
  void wait_for_all(Flag Header::*flag);
  std::byte* half(int rank) const;  // the half of a rank's slot that this collective uses
  void sum_piece(const SumPlan& plan, float* terms, std::size_t stride, std::size_t count);

  int rank_;
  int size_;
  std::byte* memory_;
  double timeout_seconds_;
  std::function<void()> on_destroy_;
  unsigned step_ = 0;
};

}  // namespace foe
