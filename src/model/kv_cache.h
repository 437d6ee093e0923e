// Owns the memory of one rank's KV blocks, [local layer][block][local KV head], in the layout of
// kernels/formats/kv_format.h.
// The scheduler decides which block belongs to which sequence (sched/block_pool.h).
#pragma once

#include <cstddef>

#include "base/huge_pages.h"
#include "core/share.h"
#include "kernels/formats/kv_format.h"

namespace foe {

class KvCache {
 public:
  KvCache(int layers, int blocks, KvShape shape) : KvCache(Range{0, layers}, blocks, shape) {}
  KvCache(Range layers, int blocks, KvShape shape)
      : first_layer_(layers.begin),
        shape_(shape),
        blocks_(blocks),
        data_(large_buffer<std::byte>(shape.block_bytes() * blocks * layers.size())) {}

  const KvShape& shape() const { return shape_; }
  int blocks() const { return blocks_; }
  std::byte* layer(int l) { return data_.data() + shape_.block_bytes() * blocks_ * (l - first_layer_); }
  std::size_t bytes() const { return data_.size(); }

 private:
  int first_layer_;
  KvShape shape_;
  int blocks_;
  AlignedBuffer<std::byte> data_;  // pages are touched when positions are written
};

}  // namespace foe
