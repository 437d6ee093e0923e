// Measures each kernel alone, at the shapes of a model, as a share of what the machine can read and compute.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "kernels/formats/weight_format.h"
#include "kernels/peak.h"

namespace foe {

struct KernelPoint {
  std::string kernel;  // "experts": a layer's gate, up and down with what is between them; "attention": its projections
  WeightFormat format;
  int tokens;
  int repetitions;
  double seconds, low, high;  // of a repetition: median, 10th and 90th percentile
  double bytes;               // of weights, each byte read once
  double operations;          // a multiply-add counts 2

  double share_of_reading(const MachineLimits& limits) const { return bytes / limits.read_bytes_per_s / seconds; }
  double share_of_peak(const MachineLimits& limits) const { return operations / limits.of_products(format) / seconds; }
};

struct KernelOptions {
  ModelConfig shape;
  std::vector<WeightFormat> formats;
  std::vector<int> tokens;
  double seconds_per_point = 0.5;
};

// Measures all kernels, and calls `report` with each. There are so many layers, which take turns, that weights come
// from memory. Tokens select experts at random, all equally likely.
void bench_kernels(ThreadPool& pool, const KernelOptions& options,
                   const std::function<void(const KernelPoint&)>& report);

}  // namespace foe
