// Collectives over a piece of memory that all ranks see: threads of one process (local_comm.cc) or processes of one
// node (mpi_comm.cc). Each rank has a slot with two halves, used in turn; a rank that has entered collective n has
// finished reading collective n - 1, so whoever has seen all ranks enter n - 1 may write the half that n uses. What is
// longer than a half goes in pieces, each a collective of its own.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

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
  void all_to_all(std::span<const std::byte> send, std::span<const std::size_t> send_bytes,
                  std::span<std::byte> receive, std::span<std::size_t> receive_bytes) override;

 private:
  struct Flag;
  struct Header;

  void enter();              // begins the next collective: my half of the slot may be written after it
  void publish(Flag& flag);  // says that this rank has done this collective's part
  void wait(Flag& flag, unsigned step, int peer);
  template <typename Ready>
  void wait_until(const Ready& ready, Flag& flag, unsigned step, int peer);
  void wait_for_all(Flag Header::*flag);
  std::byte* half(int rank) const;       // the half of a rank's slot that this collective uses
  std::size_t* lengths(int rank) const;  // behind it: of a rank's messages in an all-to-all
  void sum_piece(const SumPlan& plan, float* terms, std::size_t stride, std::size_t count);
  void write_piece(std::span<const std::byte> send, std::span<const std::size_t> send_bytes, std::size_t at);
  std::size_t read_lengths(std::span<std::size_t> receive_bytes);
  void read_piece(std::byte* receive, std::span<const std::size_t> receive_bytes, std::size_t at);

  int rank_;
  int size_;
  std::byte* memory_;
  double timeout_seconds_;
  std::function<void()> on_destroy_;
  unsigned step_ = 0;
  std::vector<const float*> partials_;     // of the sum that is going on
  std::vector<std::size_t> stream_begin_;  // of the all-to-all that is going on: see read_lengths()
};

}  // namespace foe
