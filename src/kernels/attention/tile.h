// The unit of work of attention: some queries that one register tile handles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/attention/attention.h"

namespace foe {

// The state of a softmax: the largest score so far, and the sum of e^(s - largest). With attention in bf16, scores are
// in base 2.
struct Running {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

// `rows` consecutive (token, head) pairs of one sequence, whose queries share a KV head.
struct AttentionTile {
  static constexpr int kMaxRows = 6;  // as many as AVX2 has registers for with one panel
  int rows = 0;
  const float* q[kMaxRows] = {};
  float* out[kMaxRows] = {};
  int position[kMaxRows] = {};           // ascending; a query sees the keys at 0 .. position
  const std::int32_t* blocks = nullptr;  // the sequence's block table
  const std::byte* head_kv = nullptr;    // this KV head in block 0 of the layer
  const KvShape* shape = nullptr;
  Running running[kMaxRows];  // over the spans that have been merged
  // The spans to compute. Without `parts` these are all spans, each of which is merged at once. With `parts` they are
  // some, whose results are left there for merge_tile().
  int span_begin = 0, span_end = 0;
  Running* parts = nullptr;          // [span][kMaxRows]
  float* part_outputs_Cp = nullptr;  // [span][kMaxRows][Cp]

  int spans() const { return position[rows - 1] / kAttentionSpan + 1; }
  Running& part(int span, int row) const { return parts[span * kMaxRows + row]; }
  float* part_outputs(int span, int row) const {
    return part_outputs_Cp + static_cast<std::size_t>(span * kMaxRows + row) * shape->padded_dim();
  }
};

}  // namespace foe
