// Who holds which KV block: ids only, what they hold is model/kv_cache.h's.
#pragma once

#include <cstdint>
#include <vector>

namespace foe {

class BlockAllocator {
 public:
  explicit BlockAllocator(int blocks);

  int total() const { return static_cast<int>(in_use_.size()); }
  int available() const { return static_cast<int>(free_.size()); }

  // `count` blocks, at most available() of them.
  std::vector<std::int32_t> allocate(int count);
  void release(const std::vector<std::int32_t>& blocks);

 private:
  std::vector<std::int32_t> free_;  // the last one is taken first: most recently used memory
  std::vector<bool> in_use_;
};

}  // namespace foe
