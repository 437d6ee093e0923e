// What the ranks of a training run exchange. Each rank computes the gradients of some shards of a batch, of all
// parameters or of those of its groups (split.h). They are added over shards as a tree over the index of the shard
// (core/sum_tree.h), on one rank and on many, so the bits do not depend on how many ranks there are. Each sum comes
// together on the rank that owns the piece (parts.h); when that has updated its parameters, those who have them get
// them.
//
// Where each rank has all groups, a thread of its own adds and sends each bucket as soon as the backward passes of all
// shards here have completed it, while they go on with what comes before it in the model. Ranks that share groups
// exchange during their passes, so buckets travel behind them.
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

class Exchange {
 public:
  // `split` and `comm` must outlive this.
  Exchange(const Layout& layout, const Split& split, Communicator& comm);
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const Parts& parts() const { return parts_; }
  int rank() const { return comm_.rank(); }
  int ranks() const { return comm_.size(); }
  // The shards of this rank, and those whose ends it computes.
  Range shards() const { return split_.shards(rank()); }
  Range ends() const { return split_.ends(rank()); }
  // Whether this rank has a piece's parameters, and its gradients of them.
  bool has(const Piece& piece) const { return has(piece, rank()); }
  // The pieces of this rank.
  std::span<const Piece> own_pieces() const { return own_pieces_; }

  // A step's sum over shards. `gradients` has a flat array for each shard of this rank. arrive() says, from any thread,
  // that one more of them has completed a stage. After finish(), the first array has the sums of this rank's pieces;
  // what else is in the arrays is undefined.
  void begin(std::span<AlignedBuffer<float>> gradients);
  void arrive(int stage);
  void finish(ThreadPool& pool);

  // The functions below are collective, and not to be called between begin() and finish().

  // Who has a piece of the parameters gets it from its owner.
  void share_params(float* params);
  // The same from rank 0, which has all.
  void spread_params(float* params);
  // Rank 0 gets what it has not.
  void gather_params(float* params);
  // Between the owners' arrays of moments and one in the layout of the parameters, which is used on rank 0 only.
  void gather_moments(const float* own, float* all);
  void scatter_moments(const float* all, float* own);

  // Return the numbers of all ranks: `each` for each shard, from the rank that computes its ends, in the order of
  // shards, or one for each piece.
  std::vector<double> all_of_shards(std::span<const double> own, std::size_t each);
  std::vector<double> all_of_pieces(std::span<const double> own);
  // Returns rank 0's number.
  int from_lead(int number);
  // Rank 0 receives `each` bytes of each shard, in the same way.
  void gather_shards(std::span<const std::byte> own, std::size_t each, std::span<std::byte> all);

 private:
  // Which sum over shards a piece's gradient is, and what a rank has of it.
  struct Terms {
    const SumPlan& plan;
    int rank;   // as the plan counts; -1: nothing
    int first;  // the array of gradients with the first term
    int partials() const { return rank < 0 ? 0 : plan.partials(rank); }
  };
  Terms terms_of(const Piece& piece, int of_rank) const;
  bool has(const Piece& piece, int of_rank) const {
    return piece.everywhere || split_.place_of(of_rank) == piece.place;
  }
  // Whether its owner has all terms of a piece's gradient.
  bool stays(const Piece& piece) const { return (piece.ends ? split_.ranks() : split_.sets()) == 1; }

  void add_own(const Piece& piece) const;
  void sum_over_ranks(const Bucket& bucket);
  void reserve();
  template <typename Sent, typename Source, typename Target>
  void move(const Sent& sent, const Source& source, const Target& target);
  std::vector<double> all_of(std::span<const double> own, std::span<const std::size_t> counts);

  Communicator& comm_;
  const Split& split_;
  Parts parts_;
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
