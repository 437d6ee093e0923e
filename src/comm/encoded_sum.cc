#include "comm/encoded_sum.h"

#include <algorithm>

namespace foe {

void EncodedSum::reduce(const SumPlan& plan, Wire wire, std::size_t count, float* out, std::size_t stride) {
  floats_.clear();
  if (wire == Wire::kF32) {
    for (const std::byte* partial : partials_) floats_.push_back(reinterpret_cast<const float*>(partial));
    return plan.reduce_partials(floats_, count, out, stride);
  }
  constexpr std::size_t kBlock = 16 * kWireBlock;  // floats: such blocks of all partials stay in a cache
  block_.resize(partials_.size() * kBlock);
  for (std::size_t i = 0; i < partials_.size(); ++i) floats_.push_back(block_.data() + i * kBlock);
  for (std::size_t at = 0; at < count; at += kBlock) {
    const std::size_t n = std::min(kBlock, count - at);
    for (std::size_t i = 0; i < partials_.size(); ++i)
      decode(wire, partials_[i] + wire_bytes(wire, at), n, block_.data() + i * kBlock);
    plan.reduce_partials(floats_, n, out + at, stride);
  }
}

}  // namespace foe
