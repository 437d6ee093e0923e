#include "placement/placement.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "core/model_tensors.h"
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

constexpr int kMicroBatchTokens = 64;  // at least so many tokens in each micro-batch
constexpr int kMostPerStage = 2;       // at most so many micro-batches for each stage

int panels(int total) {
  return (total + kPanel - 1) / kPanel;
}

// The same, cut between whole panels, so that only the last rank has a panel that is filled up.
Range panel_share(int total, int parts, int index) {
  const Range share = even_share(panels(total), parts, index);
  return {std::min(share.begin * kPanel, total), std::min(share.end * kPanel, total)};
}

void check_model(const ModelConfig& config, const PlanChoice& choice) {
  const Plan plan = choice.plan;
  if (choice.split_sequences && plan != Plan::kEp && plan != Plan::kFoe)
    fail(
        "ep-attention split: expected plan ep or foe, where ranks that share a group have sequences of their own, got "
        "plan {}",
        to_string(plan));
  if (plan == Plan::kPp) return;
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

// Returns how many stages the choice means. Throws Error if the ranks or the layers cannot be shared among them.
int stages_of(const ModelConfig& config, const PlanChoice& choice, int ranks) {
  const std::vector<int>& layers = choice.stage_layers;
  const int given = choice.stages > 0 ? choice.stages : static_cast<int>(layers.size());
  const int stages = given > 0 ? given : choice.plan == Plan::kPp ? ranks : 1;
  if (choice.plan == Plan::kPp && stages != ranks)
    fail("stages: expected one for each of {} ranks in plan pp, got {}; stages of several ranks have another plan",
         ranks, stages);
  if (!layers.empty() && static_cast<int>(layers.size()) != stages)
    fail("layers of stages: expected a number for each of {} stages, got {}", stages, layers.size());
  if (ranks % stages != 0) fail("stages: expected a number that divides the {} ranks, got {}", ranks, stages);
  if (stages > config.num_layers())
    fail("stages: expected at most {}, one for each layer, got {}", config.num_layers(), stages);
  std::int64_t sum = 0;
  for (const int n : layers) {
    if (n < 1) fail("layers of stages: expected at least 1 for each stage, got {}", n);
    sum += n;
  }
  if (!layers.empty() && sum != config.num_layers())
    fail("layers of stages: expected the model's {} layers together, got {}", config.num_layers(), sum);
  return stages;
}

// Returns the parameters of each layer; the last one has the token head, which is in memory even if it is the
// embedding.
std::vector<std::int64_t> layer_sizes(const ModelConfig& config) {
  std::vector<std::int64_t> sizes(config.num_layers());
  const TensorTable table(config);
  for (const ModelTensor& row : table.rows())
    if (row.layer >= 0)
      sizes[row.layer] += row.count * row.size();
    else if (row.role == TensorRole::kHead)
      sizes.back() += row.size();
  return sizes;
}

// Returns how many layers each stage has if the largest stage is as small as can be, and then the sum of the squares of
// their sizes is small.
std::vector<int> balanced_layers(const ModelConfig& config, int stages) {
  const int L = config.num_layers();
  std::vector<double> before(L + 1);  // the size of the first layers together
  const std::vector<std::int64_t> sizes = layer_sizes(config);
  for (int l = 0; l < L; ++l) before[l + 1] = before[l] + static_cast<double>(sizes[l]);
  struct Best {
    double largest = std::numeric_limits<double>::infinity(), squares = 0;
    int begin = 0;  // of the last stage
  };
  // best[s][end]: the best way to share the first `end` layers among s stages.
  std::vector<std::vector<Best>> best(stages + 1, std::vector<Best>(L + 1));
  best[0][0].largest = 0;
  for (int s = 1; s <= stages; ++s)
    for (int end = s; end <= L; ++end)
      for (int begin = end - 1; begin >= s - 1; --begin) {  // of equal ways the one with larger stages first
        const double size = before[end] - before[begin];
        const Best& rest = best[s - 1][begin];
        const Best next{std::max(rest.largest, size), rest.squares + size * size, begin};
        Best& so_far = best[s][end];
        if (std::tie(next.largest, next.squares) < std::tie(so_far.largest, so_far.squares)) so_far = next;
      }
  std::vector<int> layers(stages);
  for (int s = stages, end = L; s > 0; --s) {
    const int begin = best[s][end].begin;
    layers[s - 1] = end - begin;
    end = begin;
  }
  return layers;
}

// Returns the placement of stages with so many layers each, whose ranks share them under the plan.
Placement in_stages(const ModelConfig& config, const PlanChoice& choice, const std::vector<int>& stage_layers,
                    int ranks, const std::vector<int>& nodes) {
  const Plan within = choice.plan == Plan::kPp ? default_plan(config) : choice.plan;
  const auto each = ranks / static_cast<int>(stage_layers.size());
  Placement placement;
  int end = 0;
  for (std::size_t stage = 0; stage < stage_layers.size(); ++stage) {
    const auto first = nodes.begin() + static_cast<std::ptrdiff_t>(nodes.empty() ? 0 : stage * each);
    Placement one = make_placement(config, {within, {}, 0, choice.split_sequences}, each,
                                   {first, nodes.empty() ? first : first + each});
    const Range layers{end, end + stage_layers[stage]};
    end = layers.end;
    for (Share& share : one.ranks) {
      share.stage = static_cast<int>(stage);
      share.stage_layers = layers;
      for (std::size_t layer = 0; layer < share.layers.size(); ++layer)
        if (!share.runs(static_cast<int>(layer))) share.layers[layer] = {};
      if (end < config.num_layers()) share.vocab = {};
    }
    if (stage > 0) one.ranks.insert(one.ranks.begin(), placement.ranks.begin(), placement.ranks.end());
    placement = std::move(one);
  }
  placement.plan = choice.plan;
  placement.stages = static_cast<int>(stage_layers.size());
  return placement;
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
    case Plan::kPp:
      return "pp";
  }
  return "?";
}

Plan parse_plan(const std::string& name) {
  if (name == "tp") return Plan::kTp;
  if (name == "foe") return Plan::kFoe;
  if (name == "ep") return Plan::kEp;
  if (name == "pp") return Plan::kPp;
  fail("plan: expected tp, foe, ep or pp, got {}", name);
}

Plan default_plan(const ModelConfig& config) {
  return config.federated() ? Plan::kFoe : Plan::kTp;
}

Placement make_placement(const ModelConfig& config, const PlanChoice& choice, int ranks,
                         const std::vector<int>& nodes) {
  const Plan plan = choice.plan;
  check_model(config, choice);
  if (ranks < 1) fail("ranks: expected at least 1, got {}", ranks);
  FOE_CHECK(nodes.empty() || static_cast<int>(nodes.size()) == ranks, "{} nodes of {} ranks", nodes.size(), ranks);
  if (const int stages = stages_of(config, choice, ranks); stages > 1 || plan == Plan::kPp)
    return in_stages(config, choice,
                     choice.stage_layers.empty() ? balanced_layers(config, stages) : choice.stage_layers, ranks, nodes);
  check_ranks(config, plan, ranks);
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
  placement.split_sequences = choice.split_sequences && placement.members > 1;
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
  const Share& own = placement.ranks[rank];
  for (const Share& share : placement.ranks)
    if (share.stage == own.stage && share.groups.begin == own.groups.begin && !share.idle())
      experts[share.member] = share.experts(layer);
  return experts;
}

// In plan tp several ranks of a stage have the same member and groups: then it is the one in the same place among them.
int rank_of_stage(const Placement& placement, int rank, int step) {
  const Share& own = placement.ranks[rank];
  const auto like = [&](int stage) {
    std::vector<int> ranks;
    for (std::size_t r = 0; r < placement.ranks.size(); ++r)
      if (const Share& other = placement.ranks[r];
          other.stage == stage && !other.idle() && other.member == own.member && other.groups.begin == own.groups.begin)
        ranks.push_back(static_cast<int>(r));
    return ranks;
  };
  const std::vector<int> here = like(own.stage), there = like(own.stage + step);
  const auto place = static_cast<std::size_t>(std::ranges::find(here, rank) - here.begin());
  return place < there.size() ? there[place] : -1;
}

int passed_vectors(const ModelConfig& config, const Share& share, int layer) {
  return 1 + (config.has_pending_updates(layer) ? share.streams() : 0);
}

// More of them leave stages less time without work, at the beginning and the end of a step, and let each expert run
// fewer rows at once.
int micro_batches(const Placement& placement, int tokens) {
  if (placement.stages == 1) return 1;
  return std::clamp(tokens / kMicroBatchTokens, 1, kMostPerStage * placement.stages);
}

void check_overlap(const Placement& placement, bool overlap) {
  if (overlap && placement.stages > 1)
    fail("overlap: expected one stage, got {}, whose micro-batches overlap", placement.stages);
}

}  // namespace foe
