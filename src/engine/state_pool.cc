#include "engine/state_pool.h"

#include <algorithm>

#include "base/check.h"

namespace foe {

std::vector<float> StatePool::take(const SampledRow& row, std::span<const float> state_D) {
  const Request& request = *row.request;
  if (request.pooling == Pooling::kLast) return {state_D.begin(), state_D.end()};
  Sum& sum = sums_[request.id];
  FOE_CHECK(row.position() == sum.rows, "a state of position {}, after {} rows", row.position(), sum.rows);
  sum.of_D.resize(state_D.size());
  std::ranges::transform(sum.of_D, state_D, sum.of_D.begin(), [](double a, float b) { return a + b; });
  ++sum.rows;
  if (row.of_prompt()) return {};
  std::vector<float> mean(state_D.size());
  std::ranges::transform(sum.of_D, mean.begin(), [&](double of) { return static_cast<float>(of / sum.rows); });
  return mean;
}

}  // namespace foe
