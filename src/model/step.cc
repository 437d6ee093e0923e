#include "model/step.h"

namespace foe {

std::vector<Step> make_steps(const Model& model, const Batch& batch, KvCache& kv, Activations& a, RankGrid& grid,
                             ThreadPool& pool) {
  std::vector<Step> steps;
  const auto add = [&](const Batch& part, Activations& scratch) {
    steps.push_back({model, part, kv, scratch, grid, pool, part.num_tokens()});
  };
  if (a.exchange) a.part = part_of(batch, model.share().member);
  const Batch& own = a.exchange ? a.part : batch;
  if (!a.overlaps(batch.num_tokens())) {
    add(own, a);
    return steps;
  }
  const int half = (own.num_tokens() + 1) / 2;
  a.other_half->part = rows_of(own, half, own.num_tokens());
  a.part = rows_of(own, 0, half);
  add(a.part, a);
  add(a.other_half->part, *a.other_half);
  return steps;
}

}  // namespace foe
