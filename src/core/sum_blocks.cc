#include "core/sum_blocks.h"

#include <algorithm>
#include <cstdint>

#include "base/check.h"

namespace foe {
namespace {

// Cuts [0, total) into `blocks` blocks at multiples of `unit`. Some may be empty.
SumBlocks blocks_of(int total, int blocks, int unit) {
  const std::int64_t units = (total + unit - 1) / unit;
  SumBlocks result;
  for (int b = 0; b <= blocks; ++b)
    result.begin.push_back(std::min(total, static_cast<int>(units * b / blocks) * unit));
  return result;
}

}  // namespace

Range SumBlocks::within(Range part) const {
  const auto at = [this](int place) {
    return static_cast<int>(std::lower_bound(begin.begin(), begin.end(), place) - begin.begin());
  };
  if (part.size() == 0) return {0, 0};
  const Range blocks{at(part.begin), at(part.end)};
  FOE_CHECK(blocks.end <= count() && cover(blocks).begin == part.begin && cover(blocks).end == part.end,
            "[{}, {}) cuts one of {} blocks of [0, {})", part.begin, part.end, count(), begin.back());
  return blocks;
}

SumBlocks head_blocks(const ModelConfig& config) {
  const int heads = config.heads().kv_heads;
  return blocks_of(heads, config.federated() ? config.expert_groups : std::min(heads, kSumBlocks), 1);
}

SumBlocks width_blocks(const ModelConfig& config, int layer) {
  const int width = config.experts(layer).width;
  if (!config.experts(layer).dense()) return blocks_of(width, 1, width);
  return blocks_of(width, std::min((width + kSumBlockUnit - 1) / kSumBlockUnit, kSumBlocks), kSumBlockUnit);
}

}  // namespace foe
