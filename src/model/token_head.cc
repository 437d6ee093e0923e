#include "model/token_head.h"

#include <algorithm>
#include <numeric>

namespace foe {

void score_vocabulary(const Model& model, ThreadPool& pool, const float* x_SD, int rows, float* logits_Sv) {
  const Product head{.x = x_SD,
                     .x_stride = static_cast<std::size_t>(model.config.hidden_size),
                     .rows = nullptr,
                     .count = rows,
                     .w = &model.weights.head_vD,
                     .y = logits_Sv,
                     .y_stride = static_cast<std::size_t>(model.share().vocab.size())};
  multiply(pool, {&head, 1});
}

std::span<const float> gather_logits(const Model& model, const Batch& batch, Activations& a, Communicator& world) {
  const Placement& placement = model.placement;
  const std::size_t S = batch.num_sampled(), V = model.config.vocab_size;
  if (placement.ranks.size() == 1) return {a.logits_Sv.data(), S * V};
  const std::vector<int> sampled = sampled_by_owner(batch, placement.members);
  std::vector<std::size_t> counts, first_row(placement.members);
  for (const Share& share : placement.ranks)
    counts.push_back(static_cast<std::size_t>(sampled[share.member]) * share.vocab.size());
  world.gather({a.logits_Sv.data(), counts[model.rank]}, counts, a.gathered.data(), a.wire);
  if (model.rank != 0) return {};
  if (placement.group_ranks() == 1) return {a.gathered.data(), S * V};  // whole rows, in the order of their owners
  std::exclusive_scan(sampled.begin(), sampled.end(), first_row.begin(), std::size_t{0});
  const float* block = a.gathered.data();
  for (const Share& share : placement.ranks)
    for (int i = 0; i < sampled[share.member]; ++i, block += share.vocab.size())
      std::copy(block, block + share.vocab.size(),
                a.logits_SV.data() + (first_row[share.member] + i) * V + share.vocab.begin);
  return {a.logits_SV.data(), S * V};
}

}  // namespace foe
