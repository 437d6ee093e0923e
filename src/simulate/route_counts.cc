#include "simulate/route_counts.h"

#include <algorithm>

#include "base/error.h"
#include "costs/expert_traffic.h"

namespace foe {
namespace {

constexpr std::size_t kMostCounts = std::size_t{1} << 28;
constexpr int kShortRange = 8;  // of fewer rows each is added by itself

bool runs_alike(const Placement& placement, int a, int b) {
  return std::ranges::all_of(placement.ranks, [&](const Share& share) {
    const Range x = share.experts(a), y = share.experts(b);
    return x.begin == y.begin && x.end == y.end && share.runs(a) == share.runs(b);
  });
}

}  // namespace

RouteCounter::RouteCounter(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes,
                           Dispatch dispatch, const RouteSource& routes)
    : routes_(routes), nodes_(nodes) {
  for (const Share& own : placement.ranks) {
    std::vector<int>& members = members_of_.emplace_back(placement.members, -1);
    for (std::size_t r = 0; r < placement.ranks.size(); ++r)
      if (const Share& share = placement.ranks[r];
          !share.idle() && share.stage == own.stage && share.groups.begin == own.groups.begin)
        members[share.member] = static_cast<int>(r);
  }
  std::vector<int> layer_of;  // of each of counts_
  for (int layer = 0; layer < config.num_layers(); ++layer) {
    if (config.experts(layer).dense()) {
      counts_of_layer_.push_back(-1);
      continue;
    }
    const auto alike = std::ranges::find_if(layer_of, [&](int other) {
      return routes.table_number(layer) == routes.table_number(other) && runs_alike(placement, layer, other);
    });
    counts_of_layer_.push_back(static_cast<int>(alike - layer_of.begin()));
    if (alike != layer_of.end()) continue;
    layer_of.push_back(layer);
    counts_.push_back(count_rows(config, placement, dispatch, layer));
  }
}

RouteCounter::Counts RouteCounter::count_rows(const ModelConfig& config, const Placement& placement, Dispatch dispatch,
                                              int layer) const {
  const RouteTable& routes = routes_.table(layer);
  const ExpertTable table = expert_table(config, layer);
  Counts counts;
  counts.experts = table.with_rows();
  if (placement.members > 1)
    for (std::size_t r = 0; r < placement.ranks.size(); ++r)
      if (!placement.ranks[r].idle() && placement.ranks[r].runs(layer)) counts.ranks.push_back(static_cast<int>(r));
  const std::size_t width = counts.width(), size = width * (routes.rows() + std::size_t{1});
  std::size_t all = size;
  for (const Counts& other : counts_) all += other.before.size();
  if (all > kMostCounts)
    fail("routes: expected at most {} counts of experts and ranks, got {}: simulate fewer ranks or a shorter record",
         kMostCounts, all);
  counts.before.resize(size);
  for (int row = 0; row < routes.rows(); ++row) {
    const std::span<const std::int32_t> experts = routes.experts(row);
    const std::int32_t begin[2] = {0, static_cast<std::int32_t>(experts.size())};
    std::int32_t* next = counts.before.data() + (row + 1) * width;
    std::copy_n(next - width, width, next);
    for (const std::int32_t expert : experts) ++next[expert];
    for (std::size_t i = 0; i < counts.ranks.size(); ++i) {
      const int rank = counts.ranks[i];
      if (placement.ranks[rank].member != 0) continue;  // once for each group
      const ExpertTraffic traffic =
          expert_traffic(table, experts_of_members(placement, rank, layer), dispatch, begin, experts);
      for (int m = 0; m < placement.members; ++m) {
        if (traffic.rows[m] == 0 && traffic.sums[m] == 0) continue;
        const int to = members_of_[rank][m];
        const auto at = std::ranges::find(counts.ranks, to) - counts.ranks.begin();
        next[counts.experts + 2 * at] += static_cast<std::int32_t>(traffic.rows[m]);
        next[counts.experts + 2 * at + 1] += static_cast<std::int32_t>(traffic.sums[m]);
        counts.hits.push_back(
            {to, static_cast<std::int32_t>(traffic.rows[m]), static_cast<std::int32_t>(traffic.sums[m])});
      }
    }
    counts.hits_begin.push_back(static_cast<std::int32_t>(counts.hits.size()));
  }
  return counts;
}

void RouteCounter::clear(int layer, LayerCounts& counts) const {
  const int which = counts_of_layer_[layer];
  const bool travels = which >= 0 && !counts_[which].ranks.empty();
  counts.expert_rows.assign(which < 0 ? 0 : counts_[which].experts, 0);
  counts.rows.assign(travels ? nodes_.size() : 0, {});
  counts.sums.assign(travels ? nodes_.size() : 0, {});
}

// Rows of a member's tokens that go to a rank, and sums that come back.
void RouteCounter::travel(int rank, int member, std::int64_t rows, std::int64_t sums, LayerCounts& counts) const {
  const int from = members_of_[rank][member];
  if (from == rank) return;
  const int level = nodes_[from] != nodes_[rank] ? 1 : 0;
  counts.rows[from].out[level] += rows;
  counts.rows[rank].in[level] += rows;
  counts.sums[rank].out[level] += sums;
  counts.sums[from].in[level] += sums;
}

void RouteCounter::add(int layer, std::int64_t sequence, int first, int count, int member, LayerCounts& to) const {
  const int which = counts_of_layer_[layer];
  if (which < 0) return;
  const Counts& counts = counts_[which];
  const RouteTable& table = routes_.table(layer);
  routes_.for_each_range(layer, sequence, first, count, [&](int begin, int end) {
    if (end - begin < kShortRange) {
      for (int i = table.begin_R[begin]; i < table.begin_R[end]; ++i) ++to.expert_rows[table.experts_J[i]];
      for (int i = counts.hits_begin[begin]; i < counts.hits_begin[end]; ++i)
        travel(counts.hits[i].rank, member, counts.hits[i].rows, counts.hits[i].sums, to);
      return;
    }
    const std::int32_t* low = counts.before.data() + begin * counts.width();
    const std::int32_t* high = counts.before.data() + end * counts.width();
    for (int e = 0; e < counts.experts; ++e) to.expert_rows[e] += high[e] - low[e];
    for (std::size_t i = 0; i < counts.ranks.size(); ++i) {
      const std::size_t at = counts.experts + 2 * i;
      travel(counts.ranks[i], member, high[at] - low[at], high[at + 1] - low[at + 1], to);
    }
  });
}

}  // namespace foe
