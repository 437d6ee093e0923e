// What a decode step cannot do without, from the model, its placement and formulas alone: the bytes that it reads from
// memory and its arithmetic. With a machine's limits, the least time that it takes (the roofline model of Williams,
// Waterman and Patterson 2009). Activations, norms, the embedding and what ranks send are not counted.
#pragma once

#include <cstdint>

#include "core/model_config.h"
#include "kernels/formats/kv_format.h"
#include "kernels/peak.h"
#include "placement/placement.h"
#include "weights/weight_formats.h"

namespace foe {

// Elements of the matrices that a rank holds, without padding.
struct MatrixElements {
  std::int64_t attention = 0, router = 0, experts = 0;  // of one layer
  std::int64_t head = 0;                                // once

  // In memory, the router in f32.
  double bytes(int layers, const WeightFormats& formats) const {
    const auto of = [](std::int64_t elements, double bits) { return static_cast<double>(elements) * bits / 8; };
    return layers * (of(attention, bits(formats.attention)) + of(experts, bits(formats.experts)) + of(router, 32)) +
           of(head, bits(formats.head));
  }
};
MatrixElements matrix_elements(const ModelConfig& config, const Share& share);

struct Work {
  double bytes = 0;  // read from memory, each once
  double flops = 0;  // in f32; a multiply-add is 2
  double dots = 0;   // the same of integers: products with quantised weights

  Work& operator+=(const Work& other);
};

// Of all layers.
struct StepWork {
  Work projections;  // queries, keys, values and output
  Work attention;    // scores and values over the KV cache
  Work router;
  Work experts;  // those that some sequence selects, in expectation (experts_touched())
  Work head;

  StepWork& operator+=(const StepWork& other);
  Work total() const;
};

struct DecodeStep {
  int sequences = 1;   // one token of each
  double context = 1;  // positions that each of them attends to, its own included: the mean over sequences
  WeightFormats weights = {};
  KvType kv = KvType::kBF16;
};

// Experts of one layer that some of the sequences select, in expectation over selections that are independent and
// equally likely: E (1 - (1 - K/E)^sequences). Grouped routing selects K/H of E/H in each group: for each expert that
// is the same.
double experts_touched(const ModelConfig& config, int sequences);

// The work of one rank. Ranks that share a group own sequences in equal parts, lower members one more; their experts
// run the rows of all of them.
StepWork decode_work(const ModelConfig& config, const Placement& placement, int rank, const DecodeStep& step);

// The same of all ranks together.
StepWork decode_work(const ModelConfig& config, const Placement& placement, const DecodeStep& step);

double arithmetic_seconds(const Work& work, const MachineLimits& limits);
// Reading and arithmetic overlap at best: the longer of the two.
double least_seconds(const Work& work, const MachineLimits& limits);

}  // namespace foe
