// The floats behind the KV blocks of one rank: [layer][block][local KV head][K | V], see kernels/attention.h. Which
// block belongs to whom is the scheduler's business.
#pragma once

#include <cstddef>

#include "base/aligned.h"
#include "kernels/attention.h"

namespace foe {

class KvCache {
 public:
  KvCache(int layers, int blocks, KvShape shape)
      : shape_(shape), blocks_(blocks), data_(shape.block_floats() * blocks * layers) {}

  const KvShape& shape() const { return shape_; }
  int blocks() const { return blocks_; }
  float* layer(int l) { return data_.data() + shape_.block_floats() * blocks_ * l; }
  std::size_t bytes() const { return data_.size() * sizeof(float); }

 private:
  KvShape shape_;
  int blocks_;
  AlignedBuffer<float> data_;  // pages are touched when positions are written
};

}  // namespace foe
