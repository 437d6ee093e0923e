#include "engine/engine_stats.h"

#include <numeric>

#include "engine/engine.h"
#include "model/expert_load.h"

namespace foe {

EngineStats collect_stats(Engine& engine) {
  const Model& model = engine.model();
  EngineStats stats;
  stats.scheduler = engine.scheduler().stats();
  stats.comm = engine.collect_counters();
  const std::vector<ExpertLoad> load = engine.collect_load();
  stats.local_activation_rate = local_activation_rate(load);
  if (model.config.dense()) return stats;
  stats.expert_rows = rows_by_expert(model.config, model.placement, load);
  for (int layer = 0; layer < model.config.num_layers(); ++layer) {
    std::vector<std::int64_t>& rows = stats.rank_rows.emplace_back();
    for (const ExpertLoad& rank : load) {
      const std::vector<std::int64_t>& by_expert = rank.rows_LE[layer];
      rows.push_back(std::accumulate(by_expert.begin(), by_expert.end(), std::int64_t{0}));
    }
  }
  return stats;
}

}  // namespace foe
