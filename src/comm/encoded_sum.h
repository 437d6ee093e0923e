// Adds partial sums as they came over a wire.
#pragma once

#include <cstddef>
#include <vector>

#include "comm/sum_plan.h"
#include "kernels/formats/wire_format.h"

namespace foe {

class EncodedSum {
 public:
  // Begins another sum.
  void clear() { partials_.clear(); }
  // The next partial, in the plan's order. With f32 it must be aligned for floats.
  void add(const std::byte* partial) { partials_.push_back(partial); }

  // As SumPlan::reduce_partials, from what was added since clear(): vectors of `count` floats.
  void reduce(const SumPlan& plan, Wire wire, std::size_t count, float* out, std::size_t stride = 0);

 private:
  std::vector<const std::byte*> partials_;
  std::vector<const float*> floats_;
  std::vector<float> block_;  // of all partials: grows to the most there are
};

}  // namespace foe
