#include "placement/placement.h"

#include <algorithm>

#include "base/error.h"

namespace foe {
namespace {

// Part `index` of `total` units cut into `parts`, the larger parts first.
Range even_share(int total, int parts, int index) {
  const int base = total / parts, extra = total % parts;
  const int begin = index * base + std::min(index, extra);
  return {begin, begin + base + (index < extra ? 1 : 0)};
}

constexpr int kPanel = 16;  // the width of a SIMD panel of weights

int panels(int total) {
  return (total + kPanel - 1) / kPanel;
}

// The same in whole panels, so that no rank but the last has a padded one.
Range panel_share(int total, int parts, int index) {
  const Range share = even_share(panels(total), parts, index);
  return {std::min(share.begin * kPanel, total), std::min(share.end * kPanel, total)};
}

}  // namespace

const char* to_string(Plan plan) {
  return plan == Plan::kTp ? "tp" : "foe";
}

Plan parse_plan(const std::string& name) {
  if (name == "tp") return Plan::kTp;
  if (name == "foe") return Plan::kFoe;
  fail("plan: expected tp or foe, got {}", name);
}

Plan default_plan(const ModelConfig& config) {
  return config.federated() ? Plan::kFoe : Plan::kTp;
}

Placement make_placement(const ModelConfig& config, Plan plan, int ranks) {
  if (ranks < 1) fail("ranks: expected at least 1, got {}", ranks);
  const int H = config.expert_groups;
  if (plan == Plan::kFoe && !config.federated())
    fail(
        "plan foe needs a federated model (residual \"federated\", expert_groups > 1); this one has residual \"{}\" "
        "and {} expert groups: use plan tp",
        to_string(config.residual), H);
  if (plan == Plan::kTp && config.federated())
    fail("plan tp needs a model with a shared residual; this one is federated in {} groups: use plan foe", H);
  if (plan == Plan::kFoe && ranks > H)
    fail("plan foe: expected at most {} ranks, one for each group, got {}", H, ranks);
  const int most =
      std::max({config.num_key_value_heads, panels(config.moe_intermediate_size), panels(config.vocab_size)});
  if (plan == Plan::kTp && ranks > most)
    fail(
        "plan tp: expected at most {} ranks, the most that heads, expert width or vocabulary can be split over, got {}",
        most, ranks);

  Placement placement{plan, {}, {0}};
  for (int rank = 0; rank < ranks; ++rank) {
    Share share;
    if (plan == Plan::kFoe) {
      share.groups = even_share(H, ranks, rank);
      const int heads = config.num_key_value_heads / H, experts = config.experts() / H;
      share.kv_heads = {share.groups.begin * heads, share.groups.end * heads};
      share.experts = {share.groups.begin * experts, share.groups.end * experts};
      share.expert_width = {0, config.moe_intermediate_size};
    } else {
      share.groups = {0, 1};
      share.kv_heads = even_share(config.num_key_value_heads, ranks, rank);
      share.experts = {0, config.experts()};
      share.expert_width = panel_share(config.moe_intermediate_size, ranks, rank);
    }
    share.vocab = panel_share(config.vocab_size, ranks, rank);
    placement.ranks.push_back(share);
    placement.sum_begin.push_back(plan == Plan::kFoe ? share.groups.end : rank + 1);
  }
  return placement;
}

}  // namespace foe
