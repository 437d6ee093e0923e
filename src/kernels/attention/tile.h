// What one register tile of attention works on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/attention/attention.h"

namespace foe {

// What a softmax has taken in: the largest score, and the sum of e^(s - largest), or in base 2, as attention in bf16
// has its scores.
struct Running {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

// `rows` consecutive (token, head) pairs, queries that share one KV head of one sequence.
struct AttentionTile {
  static constexpr int kMaxRows = 6;  // with one panel, what AVX2 holds in registers
  int rows = 0;
  const float* q[kMaxRows] = {};
  float* out[kMaxRows] = {};
  int position[kMaxRows] = {};           // ascending; a query sees keys at 0..position
  const std::int32_t* blocks = nullptr;  // the sequence's block table
  const std::byte* head_kv = nullptr;    // this KV head in block 0 of the layer
  const KvShape* shape = nullptr;
  Running running[kMaxRows];  // of the spans that are merged
  // The spans to compute: all of them, merged at once, or with `parts` some, each left in its place for merge_tile().
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
