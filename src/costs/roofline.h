// The least work of a decode step, from formulas of the model and its placement: the bytes that it has to read from
// memory, and its arithmetic. With the limits of a machine this gives the least time of a step (the roofline model of
// Williams, Waterman and Patterson 2009). Activations, norms, the embedding and what ranks send are not counted.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model_config.h"
#include "kernels/formats/kv_format.h"
#include "kernels/peak.h"
#include "placement/placement.h"
#include "weights/weight_formats.h"

namespace foe {

// How many elements the matrices of a rank have in all layers, without padding.
struct MatrixElements {
  std::int64_t attention = 0, router = 0, experts = 0, head = 0;

  // Returns the bytes that they take in memory. The router is always f32.
  double bytes(const WeightFormats& formats) const {
    const auto of = [](std::int64_t elements, double bits) { return static_cast<double>(elements) * bits / 8; };
    return of(attention, bits(formats.attention, formats.kept_attention)) +
           of(experts, bits(formats.experts, formats.kept_experts)) + of(router, 32) +
           of(head, bits(formats.head, formats.kept_head));
  }
};
MatrixElements matrix_elements(const ModelConfig& config, const Share& share);
// The same by layer, and behind the last layer what is in none: the head.
std::vector<MatrixElements> matrix_elements_by_layer(const ModelConfig& config, const Share& share);

struct Work {
  double bytes = 0;  // read from memory, each byte once
  double flops = 0;  // operations in f32; a multiply-add is 2
  double dots = 0;   // operations on integers, in products with quantised weights

  Work& operator+=(const Work& other);
};

// The work of a step in all layers.
struct StepWork {
  Work projections;  // queries, keys, values and output
  Work attention;    // scores and values over the KV cache
  Work router;
  Work experts;  // in expectation: only experts that some sequence selects are read (experts_touched())
  Work head;

  StepWork& operator+=(const StepWork& other);
  Work total() const;
};

struct DecodeStep {
  int sequences = 1;  // one token of each
  // Positions that a token attends to, its own included, where no window hides some: the mean over sequences, which are
  // taken to be of one length.
  double context = 1;
  WeightFormats weights = {};
  KvType kv = KvType::kBF16;
};

// Returns how many experts of a layer are selected by at least one sequence, in expectation if selections are
// independent and equally likely: E (1 - (1 - K/E)^sequences). Grouped routing selects K/H of the E/H experts in each
// group, so the probability of an expert is the same.
double experts_touched(const ModelConfig& config, int layer, int sequences);

// The mean over layers.
double mean_experts_touched(const ModelConfig& config, int sequences);

// Returns the work of one rank. Ranks that share a group own sequences in equal parts (lower members may have one
// more); their experts run the rows of all members.
StepWork decode_work(const ModelConfig& config, const Placement& placement, int rank, const DecodeStep& step);

// Returns the work of all ranks together.
StepWork decode_work(const ModelConfig& config, const Placement& placement, const DecodeStep& step);

// Returns the seconds that the arithmetic takes at the machine's limits.
double arithmetic_seconds(const Work& work, const MachineLimits& limits);
// Returns the least seconds: reading and arithmetic overlap at best, so it is the longer of the two.
double least_seconds(const Work& work, const MachineLimits& limits);

}  // namespace foe
