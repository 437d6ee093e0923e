// How parameters, gradients and moments are cut: into pieces, small enough to share among threads, of which each
// belongs to one rank, which has its moments and updates it; and into buckets of pieces that travel between ranks
// together. Pieces are the same on any number of ranks, so that a sum over them in the order of core/sum_tree.h is,
// too.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "train/layout.h"
#include "train/split.h"

namespace foe::train {

// A part of one tensor, and of one of its parts.
struct Piece {
  std::size_t offset, size;  // in the flat array of parameters
  bool decay;
  bool ends;        // whether its gradient is of the ends of shards (split.h)
  bool everywhere;  // whether all ranks have the parameter, and not only those
                    // with `place`
  int place;        // if its gradient is not of the ends: the place in their sets of
                    // ranks whose gradient counts
  int owner;
  std::size_t moment;  // where the piece begins in the owner's arrays of moments
};

// Pieces whose gradients are complete at the end of the same stage.
struct Bucket {
  int stage;
  std::vector<int> begin;  // the pieces [begin[r], begin[r + 1]) of those by
                           // owner are rank r's
};

class Parts {
 public:
  Parts(const Layout& layout, const Split& split);

  // In the order in which the backward pass completes them.
  std::span<const Piece> pieces() const { return pieces_; }
  std::span<const Bucket> buckets() const { return buckets_; }
  std::span<const Piece> pieces_of(const Bucket& bucket, int rank) const {
    return std::span(by_owner_).subspan(bucket.begin[rank], bucket.begin[rank + 1] - bucket.begin[rank]);
  }
  std::span<const Piece> pieces_of(const Bucket& bucket) const {
    return std::span(by_owner_).subspan(bucket.begin.front(), bucket.begin.back() - bucket.begin.front());
  }
  // Returns the length of a rank's arrays of moments. A rank that has all pieces has them in the layout of the
  // parameters.
  std::size_t moments(int rank) const { return moments_[rank]; }
  // The floats of the largest bucket.
  std::size_t largest() const { return largest_; }

 private:
  void add_bucket(int stage, int first, const Split& split);

  std::vector<Piece> pieces_, by_owner_;  // the latter bucket by bucket
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> moments_;
  std::size_t largest_ = 0;
};

}  // namespace foe::train
