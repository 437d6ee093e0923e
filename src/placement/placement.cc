#include "placement/placement.h"

#include <algorithm>

#include "base/check.h"
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

void check_model(const ModelConfig& config, Plan plan) {
  const int H = config.expert_groups;
  if (plan == Plan::kFoe && !config.federated())
    fail(
        "plan foe needs a federated model (residual \"federated\", expert_groups > 1); this one has residual \"{}\" "
        "and {} expert groups: use plan tp",
        to_string(config.residual), H);
  if (plan != Plan::kFoe && config.federated())
    fail("plan {} needs a model with a shared residual; this one is federated in {} groups: use plan foe",
         to_string(plan), H);
  if (plan == Plan::kEp && config.dense())
    fail("plan ep needs a model with experts and a router; this one is dense (num_experts 0): use plan tp");
}

void check_ranks(const ModelConfig& config, Plan plan, int ranks) {
  if (ranks < 1) fail("ranks: expected at least 1, got {}", ranks);
  const auto expect_at_most = [&](int most, const char* why) {
    if (ranks > most) fail("plan {}: expected at most {} ranks, {}, got {}", to_string(plan), most, why, ranks);
  };
  switch (plan) {
    case Plan::kTp:
      return expect_at_most(
          std::max({config.num_key_value_heads, panels(config.moe_intermediate_size), panels(config.vocab_size)}),
          "the most that heads, expert width or vocabulary can be split over");
    case Plan::kFoe:
      return expect_at_most(config.expert_groups, "one for each group");
    case Plan::kEp:
      return expect_at_most(config.num_experts, "one for each expert");
  }
}

Share share_of(const ModelConfig& config, Plan plan, int ranks, int rank) {
  const Range width{0, config.moe_intermediate_size}, vocab = panel_share(config.vocab_size, ranks, rank);
  switch (plan) {
    case Plan::kTp:
      return {.groups = {0, 1},
              .kv_heads = even_share(config.num_key_value_heads, ranks, rank),
              .experts = {0, config.experts()},
              .expert_width = panel_share(width.end, ranks, rank),
              .vocab = vocab};
    case Plan::kFoe: {
      const int H = config.expert_groups, heads = config.num_key_value_heads / H, experts = config.experts() / H;
      const Range groups = even_share(H, ranks, rank);
      return {.groups = groups,
              .kv_heads = {groups.begin * heads, groups.end * heads},
              .experts = {groups.begin * experts, groups.end * experts},
              .expert_width = width,
              .vocab = vocab};
    }
    case Plan::kEp:
      return {.groups = {0, 1},
              .kv_heads = {0, config.num_key_value_heads},
              .experts = even_share(config.experts(), ranks, rank),
              .expert_width = width,
              .vocab = {0, config.vocab_size}};  // each rank scores its own sequences
  }
  FOE_CHECK(false, "plan {}", static_cast<int>(plan));
}

}  // namespace

const char* to_string(Plan plan) {
  switch (plan) {
    case Plan::kTp:
      return "tp";
    case Plan::kFoe:
      return "foe";
    case Plan::kEp:
      return "ep";
  }
  return "?";
}

Plan parse_plan(const std::string& name) {
  if (name == "tp") return Plan::kTp;
  if (name == "foe") return Plan::kFoe;
  if (name == "ep") return Plan::kEp;
  fail("plan: expected tp, foe or ep, got {}", name);
}

Plan default_plan(const ModelConfig& config) {
  return config.federated() ? Plan::kFoe : Plan::kTp;
}

Placement make_placement(const ModelConfig& config, Plan plan, int ranks) {
  check_model(config, plan);
  check_ranks(config, plan, ranks);
  Placement placement{plan, {}, {0}};
  for (int rank = 0; rank < ranks; ++rank) {
    placement.ranks.push_back(share_of(config, plan, ranks, rank));
    placement.sum_begin.push_back(plan == Plan::kFoe ? placement.ranks.back().groups.end : rank + 1);
  }
  return placement;
}

}  // namespace foe
