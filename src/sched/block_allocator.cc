#include "sched/block_allocator.h"

#include "base/check.h"

namespace foe {

BlockAllocator::BlockAllocator(int blocks) : in_use_(blocks) {
  for (int id = blocks - 1; id >= 0; --id) free_.push_back(id);
}

std::vector<std::int32_t> BlockAllocator::allocate(int count) {
  FOE_CHECK(0 <= count && count <= available(), "{} of {} blocks", count, available());
  std::vector<std::int32_t> blocks(free_.end() - count, free_.end());
  free_.resize(free_.size() - count);
  for (const std::int32_t id : blocks) in_use_[id] = true;
  return blocks;
}

void BlockAllocator::release(const std::vector<std::int32_t>& blocks) {
  for (const std::int32_t id : blocks) {
    FOE_CHECK(in_use_[id], "block {} is free already", id);
    in_use_[id] = false;
    free_.push_back(id);
  }
}

}  // namespace foe
