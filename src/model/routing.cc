#include "model/routing.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "core/sum_tree.h"
#include "kernels/rows/rows.h"
#include "placement/expert_nodes.h"

namespace foe {

Routing::Routing(int selected, int local_experts, int max_tokens) : entries(selected), expert_begin(local_experts + 1) {
  const std::size_t all = static_cast<std::size_t>(max_tokens) * selected;
  experts_TK.resize(all);
  weights_TK.resize(all);
  token_R.resize(all);
  row_TK.resize(all);
}

void select_experts(ThreadPool& pool, const ModelConfig& config, float* scores_TE, int tokens, Routing& routing) {
  if (config.dense()) {
    std::fill_n(routing.experts_TK.begin(), tokens, 0);
    std::fill_n(routing.weights_TK.begin(), tokens, 1.0f);
    return;
  }
  const int E = config.experts(0).count, K = config.experts(0).per_token, H = config.expert_groups;
  constexpr int kBlock = 32;  // tokens per task
  pool.parallel_for((tokens + kBlock - 1) / kBlock, [&](std::size_t task) {
    const int begin = static_cast<int>(task) * kBlock, end = std::min(tokens, begin + kBlock);
    for (int t = begin; t < end; ++t) {
      float* p_E = scores_TE + static_cast<std::size_t>(t) * E;
      std::int32_t* experts = routing.experts_TK.data() + static_cast<std::size_t>(t) * K;
      float* weights = routing.weights_TK.data() + static_cast<std::size_t>(t) * K;
      softmax(p_E, E, p_E);
      for (int h = 0; h < H; ++h) {
        top_k(p_E + h * (E / H), E / H, K / H, experts + h * (K / H));
        for (int j = h * (K / H); j < (h + 1) * (K / H); ++j) experts[j] += h * (E / H);
      }
      float sum = 0.0f;
      for (int j = 0; j < K; ++j) sum += weights[j] = p_E[experts[j]];
      if (config.experts(0).router->norm == RouterNorm::kSelected)
        for (int j = 0; j < K; ++j) weights[j] /= sum;
    }
  });
}

void sort_rows(const Share& share, int tokens, Routing& routing) {
  const int K = routing.entries, selected = tokens * K;
  std::vector<std::int32_t>& begin = routing.expert_begin;
  std::fill(begin.begin(), begin.end(), 0);
  for (int i = 0; i < selected; ++i)
    if (share.experts.contains(routing.experts_TK[i])) ++begin[routing.experts_TK[i] - share.experts.begin + 1];
  for (std::size_t e = 1; e < begin.size(); ++e) begin[e] += begin[e - 1];
  // Placing the tokens moves each expert's begin to its end, which is the next one's begin: shift back afterwards.
  for (int i = 0; i < selected; ++i) {
    const int expert = routing.experts_TK[i];
    if (!share.experts.contains(expert)) {
      routing.row_TK[i] = -1;
      continue;
    }
    const int row = begin[expert - share.experts.begin]++;
    routing.row_TK[i] = row;
    routing.token_R[row] = i / K;
  }
  std::copy_backward(begin.begin(), begin.end() - 1, begin.end());
  begin[0] = 0;
}

void add_in_tree_order(const float* const* rows, const int* indices, const float* weights, int count, int D,
                       float* y_D) {
  static constexpr auto kOnes = [] {
    std::array<float, kMaxSelected> ones{};
    ones.fill(1.0f);
    return ones;
  }();
  Merge merges[kMaxSelected];
  sum_tree_merges(indices, count, merges);
  combine_rows(rows, weights ? weights : kOnes.data(), merges, count, D, y_D);
}

void combine_row(const ModelConfig& config, const Routing& routing, int t, Range experts, const float* y_RD,
                 float* y_D) {
  const int K = routing.entries, D = config.hidden_size;
  const float* rows[kMaxSelected];
  float weights[kMaxSelected];
  int indices[kMaxSelected], count = 0;
  for (int i = t * K; i < (t + 1) * K; ++i) {
    if (!experts.contains(routing.experts_TK[i])) continue;
    FOE_CHECK(routing.row_TK[i] >= 0 && count < kMaxSelected, "row {}, {} experts", routing.row_TK[i], count);
    rows[count] = y_RD + static_cast<std::size_t>(routing.row_TK[i]) * D;
    weights[count] = routing.weights_TK[i];
    indices[count++] = expert_tree_index(config, routing.experts_TK[i]);
  }
  add_in_tree_order(rows, indices, weights, count, D, y_D);
}

void combine_experts(ThreadPool& pool, const ModelConfig& config, const Routing& routing, std::span<const Range> parts,
                     const float* y_RD, int tokens, float* updates_PTD) {
  constexpr int kBlock = 16;  // tokens per task
  const std::size_t blocks = (tokens + kBlock - 1) / kBlock;
  pool.parallel_for(parts.size() * blocks, [&](std::size_t task) {
    const std::size_t part = task / blocks;
    const int begin = static_cast<int>(task % blocks) * kBlock, end = std::min(tokens, begin + kBlock);
    float* const update_TD = updates_PTD + part * tokens * config.hidden_size;
    for (int t = begin; t < end; ++t)
      combine_row(config, routing, t, parts[part], y_RD, update_TD + static_cast<std::size_t>(t) * config.hidden_size);
  });
}

}  // namespace foe
