// Results of attention against the reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "attention_layer.h"

namespace foe {

inline constexpr Types kAllTypes[] = {{KvType::kF32}, {KvType::kBF16}, {KvType::kInt8}, kRounded};

inline std::string name_of(Types types) {
  const std::string kv = to_string(types.kv);
  return types.attention == AttentionType::kF32 ? kv : kv + "_rounded";
}

// What one query's scores are like.
struct Scores {
  double largest = -1e300, smallest = 1e300;  // a sink counts
  double magnitude = 0;                       // the largest sum of magnitudes of a score's terms
  double largest_sink = 0;                    // magnitude
};

// How far one output may be from sum_j p_j v_j. Each term is a weight e^(s_j - largest) times v_j, and the result is
// their sum over that of the weights. A score is a chain of C products, scaled (3 roundings: root, reciprocal,
// product): its error counts fully in the exponent, as do the rounded differences of scores, u times their spread at
// most in all. Besides, a weight takes 4 u for each exp (its own, and one for each merge of spans), a rounding for each
// factor, and those of the sums: 128 in a span and 3 per merge. With int8, scores and weights are once more multiplied,
// by the scales of keys and values. In bf16, a weight's own exp is within 2^-18, and its rounding within 2^-9, in
// numerator and denominator alike; differences of scores are in base 2, which merges round once more and convert with
// a rounded constant; chains are no longer, but their sums are added. A soft-cap's tangent does not grow the error of
// what it is taken of, is itself within 4 ulp (8 u), and has 4 more roundings: of its factor before, and of the cap. A
// sink is rounded to the base of scores. Numerator and denominator both err by a factor within e^-+eta, so their
// quotient within e^-+2 eta. A weight below e^-87 of the largest is taken as 0, and in bf16 what is below 2^-126: any
// product, and any sum.
inline double attention_bound(int keys, const Layer& layer, const Scores& scores, double value_magnitude,
                              double largest_value) {
  const int spans = (keys + kAttentionSpan - 1) / kAttentionSpan, C = layer.shape.key_width;
  const int scaled = layer.shape.type == KvType::kInt8 ? 1 : 0;
  const bool rounded = layer.shape.attention == AttentionType::kBF16;
  const int blocks = rounded ? 1 + C / 32 : 0;
  const double cap = layer.rule.softcap;
  const double score_error = gamma(C + 3 + scaled + blocks) * scores.magnitude +
                             (cap > 0 ? gamma(12) * std::min(cap, scores.magnitude) : 0) +
                             gamma(2) * scores.largest_sink;
  const double eta =
      score_error + kUnitRoundoff * (rounded ? 3 : 1) * (scores.largest - scores.smallest + 2 * score_error) +
      gamma(4 * (1 + spans) + kAttentionSpan + 4 * spans + 1 + scaled) + (rounded ? -std::log1p(-0x1p-9 - 0x1p-18) : 0);
  return std::expm1(2 * eta) * value_magnitude + keys * std::exp(-87.0) * 2 * largest_value +
         (rounded ? 2 * keys * 0x1p-126 : 0);
}

// One query's, which sees so many keys and hides those before `first`.
inline Scores scores_of(const Layer& layer, const double* q_C, const ref::Values& k_SmC, int first, int keys,
                        int head) {
  const auto [n, m] = layer.heads;
  const int C = layer.shape.key_width, kv_head = head / (n / m);
  const double scale = layer.rule.scale == 0 ? 1 / std::sqrt(C) : layer.rule.scale;
  const ref::Values all = ref::scores(layer.params(), q_C, k_SmC, keys, m, kv_head, C);
  Scores scores;
  const auto take = [&](double score) {
    scores.largest = std::max(scores.largest, score);
    scores.smallest = std::min(scores.smallest, score);
  };
  for (int j = first; j < keys; ++j) {
    take(all[j]);
    double terms = 0;
    for (int c = 0; c < C; ++c) terms += std::abs(q_C[c] * k_SmC[(j * m + kv_head) * C + c] * scale);
    scores.magnitude = std::max(scores.magnitude, terms);
  }
  if (layer.rule.sinks) {
    take(layer.sinks_n[head]);
    scores.largest_sink = std::abs(layer.sinks_n[head]);
  }
  return scores;
}

// Checks the last `queries` results of a sequence, against attention to what the cache holds.
inline void check(const Layer& layer, const Sequence& s, int queries) {
  const auto [n, m] = layer.heads;
  const int C = layer.shape.key_width, W = layer.shape.value_width;
  auto q = to_double({s.q_SnC.end() - queries * n * C, s.q_SnC.end()});
  if (layer.shape.attention == AttentionType::kBF16)
    for (double& x : q) x = to_float(to_bf16(static_cast<float>(x)));
  const auto [k, v] = ref::read_kv(layer.shape, layer.kv.data(), s.blocks, s.length);
  const auto expected = ref::attention(layer.params(), q, k, v, queries, n, m, C, W);
  const auto value_magnitude = ref::attention(layer.params(), q, k, absolute(v), queries, n, m, C, W);
  for (int t = 0; t < queries; ++t)
    for (int head = 0; head < n; ++head) {
      const int keys = s.length - queries + t + 1;
      const int first = layer.rule.window > 0 ? std::max(0, keys - layer.rule.window) : 0;
      const Scores scores = scores_of(layer, q.data() + (t * n + head) * C, k, first, keys, head);
      double largest_value = 0;
      for (int j = first; j < keys; ++j)
        for (int c = 0; c < W; ++c)
          largest_value = std::max(largest_value, std::abs(v[(j * m + head / (n / m)) * W + c]));
      for (int c = 0; c < W; ++c) {
        const int at = (t * n + head) * W + c;
        ASSERT_NEAR(s.out_SnW[(s.length - queries) * n * W + at], expected[at],
                    attention_bound(keys, layer, scores, value_magnitude[at], largest_value))
            << "query " << t << ", head " << head << ", column " << c;
      }
    }
}

// Checks that the one sequence has the same results whole and in chunks of each size, on every instruction set and with
// every number of threads.
inline void check_chunks(Layer& layer, Types types, std::initializer_list<int> sizes) {
  const auto pools = thread_pools();
  std::vector<std::vector<float>> first;
  for_each_target_of(types, [&] {
    for (const auto& pool : pools) {
      layer.run_whole(*pool);
      if (first.empty()) first = layer.results();
      ASSERT_EQ(layer.results(), first) << pool->threads() << " threads";
    }
    for (const int size : sizes) {
      layer.clear();
      layer.run_in_chunks(*pools[size % 3], size);
      ASSERT_EQ(layer.results(), first) << "chunks of " << size;
    }
  });
}

// The last tokens of each sequence as a batch.
inline std::vector<Layer::Chunk> last_chunks(const std::vector<int>& lengths, int tokens) {
  std::vector<Layer::Chunk> last;
  for (int s = 0; s < static_cast<int>(lengths.size()); ++s) {
    const int count = std::min(tokens, lengths[s]);
    last.push_back({s, lengths[s] - count, count});
  }
  return last;
}

}  // namespace foe
