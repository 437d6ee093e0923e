#include "placement/placement.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "core/sum_blocks.h"
#include "placement/expert_nodes.h"

namespace foe {
namespace {

// Returns part `index` of `total` units that are cut into `parts` parts, the larger parts first.
Range even_share(int total, int parts, int index) {
  const int base = total / parts, extra = total % parts;
  const int begin = index * base + std::min(index, extra);
  return {begin, begin + base + (index < extra ? 1 : 0)};
}

constexpr int kPanel = 16;  // the width of a SIMD panel of weights

int panels(int total) {
  return (total + kPanel - 1) / kPanel;
}

// The same, cut between whole panels, so that only the last rank has a panel that is filled up.
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

// Returns the most that f(layer) returns for any layer.
template <typename F>
int most_of_layers(const ModelConfig& config, const F& f) {
  int most = 0;
  for (int layer = 0; layer < config.num_layers(); ++layer) most = std::max(most, f(layer));
  return most;
}

void check_ranks(const ModelConfig& config, Plan plan, int ranks) {
  if (ranks < 1) fail("ranks: expected at least 1, got {}", ranks);
  const auto expect_at_most = [&](int most, const char* why) {
    if (ranks > most) fail("plan {}: expected at most {} ranks, {}, got {}", to_string(plan), most, why, ranks);
  };
  const int experts = most_of_layers(config, [&](int layer) { return expert_table(config, layer).with_rows(); });
  const int blocks = most_of_layers(config, [&](int layer) { return width_blocks(config, layer).count(); });
  if (plan == Plan::kTp)
    expect_at_most(std::max({head_blocks(config).count(), experts, blocks, panels(config.vocab_size)}),
                   "the most that blocks of heads, experts (or blocks of a dense layer's width) or vocabulary can be "
                   "split over");
  else
    expect_at_most(experts, "one for each expert");
}

// Returns a rank's experts in plan tp. The experts are cut at multiples of a power of two that is at most a quarter of
// an even share, so that a rank's experts are few subtrees of the sum.
Range tp_experts(int experts, int ranks, int rank) {
  const int step = static_cast<int>(std::bit_floor(static_cast<unsigned>(std::max(1, experts / ranks / 4))));
  const auto cut = [=](std::int64_t r) {
    return r == ranks ? experts : static_cast<int>((2 * experts * r / step + ranks) / (2 * ranks)) * step;
  };
  return {cut(rank), cut(rank + 1)};
}

template <typename F>
std::vector<ExpertsShare> each_layer(const ModelConfig& config, const F& share) {
  std::vector<ExpertsShare> layers;
  for (int layer = 0; layer < config.num_layers(); ++layer) layers.push_back(share(layer));
  return layers;
}

Share tp_share(const ModelConfig& config, int ranks, int rank) {
  const SumBlocks heads = head_blocks(config);
  const auto share_of_layer = [&](int layer) -> ExpertsShare {
    if (!config.experts(layer).dense())
      return {tp_experts(expert_table(config, layer).with_rows(), ranks, rank), {0, config.experts(layer).width}};
    const SumBlocks width = width_blocks(config, layer);
    return {{0, 1}, width.cover(even_share(width.count(), ranks, rank))};
  };
  return {.groups = {0, 1},
          .kv_heads = heads.cover(even_share(heads.count(), ranks, rank)),
          .vocab = panel_share(config.vocab_size, ranks, rank),
          .layers = each_layer(config, share_of_layer)};
}

// Returns the share of the rank that is `index` of `parts` along the group axis and `member` of `members` along the
// member axis: a part of the groups with their heads, and a part of these groups' experts. Each member has all of a
// dense layer.
Share grid_share(const ModelConfig& config, int parts, int index, int members, int member) {
  const int H = config.federated() ? config.expert_groups : 1;
  const int heads = config.heads().kv_heads / H;
  const Range groups = even_share(H, parts, index);
  const auto share_of_layer = [&](int layer) -> ExpertsShare {
    const Range all{0, config.experts(layer).width};
    if (config.experts(layer).dense()) return {{0, 1}, all};
    const int experts = expert_table(config, layer).with_rows() / H, first = groups.begin * experts;
    const Range part = even_share(groups.size() * experts, members, member);
    return {{first + part.begin, first + part.end}, all};
  };
  return {.groups = groups,
          .member = member,
          .kv_heads = {groups.begin * heads, groups.end * heads},
          .vocab = panel_share(config.vocab_size, parts, index),
          .layers = each_layer(config, share_of_layer)};
}

// Returns the end of the terms of a layer's experts' sum that the ranks up to this share own.
int end_of_expert_terms(const ModelConfig& config, int layer, const Share& last) {
  if (config.federated()) return last.groups.end;
  if (config.experts(layer).dense()) return width_blocks(config, layer).within({0, last.expert_width(layer).end}).end;
  return expert_terms(expert_table(config, layer), {0, last.experts(layer).end}).end;
}

// Returns for each group the `members` ranks that share it. As long as a node has so many ranks left, they are of one
// node; then the ranks that are left over share groups.
std::vector<std::vector<int>> ranks_of_groups(const std::vector<int>& nodes, int groups, int members) {
  std::vector<std::vector<int>> result;
  std::vector<int> left_over;
  const auto deal = [&](const std::vector<int>& ranks) {
    for (std::size_t at = 0; at < ranks.size(); at += members) {
      const std::vector<int> part(ranks.begin() + at, ranks.begin() + std::min(at + members, ranks.size()));
      const bool whole = static_cast<int>(part.size()) == members && static_cast<int>(result.size()) < groups;
      if (whole)
        result.push_back(part);
      else
        left_over.insert(left_over.end(), part.begin(), part.end());
    }
  };
  for (int node = 0; node <= *std::max_element(nodes.begin(), nodes.end()); ++node) {
    std::vector<int> ranks;
    for (std::size_t r = 0; r < nodes.size(); ++r)
      if (nodes[r] == node) ranks.push_back(static_cast<int>(r));
    deal(ranks);
  }
  deal(std::exchange(left_over, {}));
  return result;
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

Placement make_placement(const ModelConfig& config, Plan plan, int ranks, const std::vector<int>& nodes) {
  check_model(config, plan);
  check_ranks(config, plan, ranks);
  FOE_CHECK(nodes.empty() || static_cast<int>(nodes.size()) == ranks, "{} nodes of {} ranks", nodes.size(), ranks);
  const int groups = config.federated() ? config.expert_groups : 1;
  Placement placement{.plan = plan,
                      .ranks = std::vector<Share>(ranks),
                      .attention_begin = {0},
                      .expert_begin = std::vector(config.num_layers(), std::vector{0})};
  const auto add_terms_to = [&](const Share& last) {
    placement.attention_begin.push_back(head_blocks(config).within({0, last.kv_heads.end}).end);
    for (int layer = 0; layer < config.num_layers(); ++layer)
      placement.expert_begin[layer].push_back(end_of_expert_terms(config, layer, last));
  };
  if (plan == Plan::kTp || ranks <= groups) {
    for (int rank = 0; rank < ranks; ++rank) {
      placement.ranks[rank] = plan == Plan::kTp ? tp_share(config, ranks, rank) : grid_share(config, ranks, rank, 1, 0);
      add_terms_to(placement.ranks[rank]);
    }
    return placement;
  }
  placement.members = ranks / groups;
  const auto dealt =
      ranks_of_groups(nodes.empty() || groups == 1 ? std::vector<int>(ranks) : nodes, groups, placement.members);
  for (int g = 0; g < groups; ++g) {
    for (int m = 0; m < placement.members; ++m)
      placement.ranks[dealt[g][m]] = grid_share(config, groups, g, placement.members, m);
    add_terms_to(placement.ranks[dealt[g].back()]);
  }
  return placement;
}

std::vector<Range> experts_of_members(const Placement& placement, int rank, int layer) {
  std::vector<Range> experts(placement.members);
  for (const Share& share : placement.ranks)
    if (share.groups.begin == placement.ranks[rank].groups.begin && !share.idle())
      experts[share.member] = share.experts(layer);
  return experts;
}

}  // namespace foe
