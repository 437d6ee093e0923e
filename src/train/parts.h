// How parameters, gradients and moments are cut: into pieces, small enough to share among threads, of which each
// belongs to one rank, which has its moments and updates it; and into buckets of pieces that travel between ranks
// together. Pieces are the same on any number of ranks, so that a sum over them in the order of core/sum_tree.h is,
// too.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "train/layout.h"

namespace foe::train {

// A part of one tensor, and of one of its parts.
struct Piece {
  std::size_t offset, size;  // in the flat array of parameters
  bool decay;
  int owner;
  std::size_t moment;  // where the piece begins in the owner's arrays of moments
};

// Consecutive pieces whose gradients are complete at the end of the same stage.
struct Bucket {
  int stage;
  std::vector<int> begin;  // the pieces [begin[r], begin[r + 1]) are those of rank r
};

class Parts {
 public:
  Parts(const Layout& layout, int ranks);

  // In the order in which the backward pass completes them.
  std::span<const Piece> pieces() const { return pieces_; }
  std::span<const Bucket> buckets() const { return buckets_; }
  std::span<const Piece> pieces_of(const Bucket& bucket, int rank) const {
    return pieces().subspan(bucket.begin[rank], bucket.begin[rank + 1] - bucket.begin[rank]);
  }
  // Returns the floats of a rank's pieces in a bucket.
  std::size_t floats(const Bucket& bucket, int rank) const;
  // Returns the length of a rank's arrays of moments. A rank that has all pieces has them in the layout of the
  // parameters.
  std::size_t moments(int rank) const { return moments_[rank]; }
  // The floats of the largest bucket.
  std::size_t largest() const { return largest_; }

 private:
  void add_bucket(int first, int last, int ranks);

  std::vector<Piece> pieces_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> moments_;
  std::size_t largest_ = 0;
};

}  // namespace foe::train
