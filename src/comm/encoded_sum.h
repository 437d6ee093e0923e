// Decodes and adds partial sums that came over a wire.
#pragma once

#include <cstddef>
#include <vector>

#include "comm/sum_plan.h"
#include "kernels/formats/wire_format.h"

namespace foe {

class EncodedSum {
 public:
  // Begins a new sum.
  void clear() { partials_.clear(); }
  // Adds a pointer to the next partial sum, in the plan's order. It must stay valid until reduce() and, with f32, be
  // aligned for floats.
  void add(const std::byte* partial) { partials_.push_back(partial); }

  // Writes the sum of what was added since clear(), vectors of `count` floats, to `out`: like SumPlan::reduce_partials.
  void reduce(const SumPlan& plan, Wire wire, std::size_t count, float* out, std::size_t stride = 0);

 private:
  std::vector<const std::byte*> partials_;
  std::vector<const float*> floats_;
  std::vector<float> block_;  // one decoded block of each partial
};

}  // namespace foe
