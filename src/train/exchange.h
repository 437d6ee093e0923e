// What the ranks of a training run exchange. Each rank computes the gradients of some shards of a batch. They are added
// over shards as a tree over the index of the shard (core/sum_tree.h), on one rank and on many, so the bits do not
// depend on how many ranks there are. Each sum comes together on the rank that owns the piece (parts.h); when that has
// updated its parameters, everyone gets them.
//
// With several ranks, a thread of its own adds and sends each bucket as soon as the backward passes of all shards here
// have completed it, while they go on with what comes before it in the model.
#pragma once

#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "comm/background.h"
#include "comm/communicator.h"
#include "core/share.h"
#include "train/parts.h"

namespace foe::train {

// Returns the sum of terms whose indices count from 0, in the order of core/sum_tree.h.
double tree_sum(std::span<const double> terms);

class Exchange {
 public:
  // `comm` must outlive this. Throws Error if there are more ranks than shards.
  Exchange(const Layout& layout, int shards, Communicator& comm);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const Parts& parts() const { return parts_; }
  int rank() const { return comm_.rank(); }
  int ranks() const { return comm_.size(); }
  // The shards of this rank.
  Range shards() const { return {plan_.begin()[rank()], plan_.begin()[rank() + 1]}; }
  // The pieces of this rank.
  std::span<const Piece> own_pieces() const { return own_pieces_; }

  // A step's sum over shards. `gradients` has a flat array for each shard of this rank. arrive() says, from any thread,
  // that one more of them has completed a stage. After finish(), the first array has the sums of this rank's pieces;
  // what else is in the arrays is undefined.
  void begin(std::span<AlignedBuffer<float>> gradients);
  void arrive(int stage);
  void finish(ThreadPool& pool);

  // The functions below are collective, and not to be called between begin() and finish().

  // Everyone gets each piece of the parameters from its owner.
  void share_params(float* params);
  // Everyone gets all of the parameters from rank 0.
  void spread_params(float* params);
  // Between the owners' arrays of moments and one in the layout of the parameters, which is used on rank 0 only.
  void gather_moments(const float* own, float* all);
  void scatter_moments(const float* all, float* own);

  // Return the numbers of all ranks, in the order of shards, of which all have as many, or one for each piece.
  std::vector<double> all_of_shards(std::span<const double> own);
  std::vector<double> all_of_pieces(std::span<const double> own);
  // Returns rank 0's number.
  int from_lead(int number);
  // Rank 0 receives the bytes of all shards, in their order; each shard has as many as the others.
  void gather_shards(std::span<const std::byte> own, std::span<std::byte> all);

 private:
  void add_own(const Piece& piece) const;
  void sum_over_ranks(const Bucket& bucket);
  template <typename Sent, typename Source, typename Target>
  void move(const Sent& sent, const Source& source, const Target& target);
  std::vector<double> all_of(std::span<const double> own, std::span<const std::size_t> counts);

  Communicator& comm_;
  Parts parts_;
  SumPlan plan_;
  std::vector<Piece> own_pieces_;
  std::span<AlignedBuffer<float>> gradients_;
  AlignedBuffer<float> send_, receive_;
  std::vector<std::size_t> send_bytes_, receive_bytes_;
  std::mutex mutex_;
  std::vector<int> arrived_;  // of each stage: how many shards have completed it
  std::vector<Background::Ticket> tickets_;
  std::optional<Background> background_;
};

}  // namespace foe::train
