// The unit of work of attention: some queries that one register tile handles.
#pragma once

#include <algorithm>
#include <cmath>
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

// AttentionParams as tiles take them. A product p of a query and a key is the score p * scale, or with a soft-cap
// tanh(p * squash) * scale. Scores are in base 2 in kBF16: weights are then powers of 2.
struct Scoring {
  float scale;
  float squash = 0;    // 0: no soft-cap
  double base = 1;     // what a score in base e is multiplied by
  int window;          // 0: none
  const float* sinks;  // of each query head, or null

  // Computed in double, so that it is the same everywhere; but for the default scale in base e, also if it is given.
  Scoring(const KvShape& shape, const AttentionParams& params)
      : window(params.window), sinks(params.sinks_n.empty() ? nullptr : params.sinks_n.data()) {
    const bool rounded = shape.attention == AttentionType::kBF16;
    if (rounded) base = 1.4426950408889634;
    const double root = std::sqrt(static_cast<double>(shape.key_width));
    if (params.softcap > 0) {
      squash = static_cast<float>((params.scale > 0 ? params.scale : 1 / root) / params.softcap);
      scale = static_cast<float>(base * params.softcap);
    } else if (params.scale > 0 && params.scale != 1 / root) {
      scale = static_cast<float>(base * params.scale);
    } else {
      scale = rounded ? static_cast<float>(base / root) : 1.0f / std::sqrt(static_cast<float>(shape.key_width));
    }
  }

  // The first position that a query at `position` sees.
  int first_seen(int position) const { return window == 0 ? 0 : std::max(0, position - window + 1); }
  // Before any span is taken in. With a window, a row may be merged before it sees anything: its largest score is
  // then finite, so that differences are.
  Running start(int query_head) const {
    if (sinks != nullptr) return {.largest = static_cast<float>(sinks[query_head] * base), .sum = 1.0f};
    return window == 0 ? Running{} : Running{.largest = std::numeric_limits<float>::lowest()};
  }
};

// `rows` consecutive (token, head) pairs of one sequence, whose queries share a KV head.
struct AttentionTile {
  static constexpr int kMaxRows = 6;  // as many as AVX2 has registers for with one panel
  int rows = 0;
  const float* q[kMaxRows] = {};
  float* out[kMaxRows] = {};
  int position[kMaxRows] = {};           // ascending; a query sees the keys at
  int first[kMaxRows] = {};              // first .. position
  const std::int32_t* blocks = nullptr;  // the sequence's block table
  const std::byte* head_kv = nullptr;    // this KV head in block 0 of the layer
  const KvShape* shape = nullptr;
  const Scoring* scoring = nullptr;
  Running running[kMaxRows];  // over the spans that have been merged
  // The spans to compute. Without `parts` these are all spans, each of which is merged at once. With `parts` they are
  // some, whose results are left there for merge_tile().
  int span_begin = 0, span_end = 0;
  Running* parts = nullptr;          // [span][kMaxRows]
  float* part_outputs_Wp = nullptr;  // [span][kMaxRows][Wp]
  int part_begin = 0;                // the span of the first part

  // The spans that some row sees are those from the first up to the end.
  int first_span() const { return first[0] / kAttentionSpan; }
  int end_span() const { return position[rows - 1] / kAttentionSpan + 1; }
  // Of a span, a row sees the keys [hidden, seen), and none of it where that is empty.
  int hidden(int row, int span_first) const { return std::max(0, first[row] - span_first); }
  int seen(int row, int span_first) const { return std::min(kAttentionSpan, position[row] + 1 - span_first); }
  bool sees(int row, int span_first) const { return hidden(row, span_first) < seen(row, span_first); }

  Running& part(int span, int row) const { return parts[(span - part_begin) * kMaxRows + row]; }
  float* part_outputs(int span, int row) const {
    const std::size_t at = static_cast<std::size_t>((span - part_begin) * kMaxRows + row);
    return part_outputs_Wp + at * shape->padded_values();
  }
};

}  // namespace foe
