#include "model/expert_load.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace foe {

void ExpertLoad::add(int layer, const ModelConfig& config, const Share& share, const Routing& own, int tokens,
                     const Routing& sorted) {
  std::vector<std::int64_t>& rows_E = rows_LE[layer];
  for (std::size_t e = 0; e < rows_E.size(); ++e) rows_E[e] += sorted.expert_begin[e + 1] - sorted.expert_begin[e];
  if (config.experts(layer).dense()) return;  // which nobody selects
  if (&own == &sorted) {
    selected += sorted.expert_begin.back();
    local += sorted.expert_begin.back();
    return;
  }
  // Of all groups, or in a federated model of the rank's own.
  const int per_group = expert_table(config, layer).rows_per_group();
  const Range groups = config.federated() ? share.groups : Range{0, config.expert_groups};
  for (int t = 0; t < tokens; ++t) {
    selected += own.entries(t, {groups.begin * per_group, groups.end * per_group}).size();
    local += own.entries(t, share.experts(layer)).size();
  }
}

std::vector<ExpertLoad> gather_load(Communicator& comm, const ModelConfig& config, const Placement& placement,
                                    const ExpertLoad& mine) {
  std::vector<std::int64_t> send{mine.selected, mine.local};
  for (const std::vector<std::int64_t>& rows_E : mine.rows_LE) send.insert(send.end(), rows_E.begin(), rows_E.end());
  std::vector<ExpertLoad> all;
  std::size_t total = 0;
  if (comm.rank() == 0)
    for (const Share& share : placement.ranks) {
      ExpertLoad& load = all.emplace_back();
      total += 2;
      for (int layer = 0; layer < config.num_layers(); ++layer) {
        load.rows_LE.push_back(std::vector<std::int64_t>(share.experts(layer).size()));
        total += load.rows_LE.back().size();
      }
    }
  std::vector<std::int64_t> received(total);
  std::vector<std::size_t> sent_bytes(comm.size()), received_bytes(comm.size());
  sent_bytes[0] = send.size() * sizeof send[0];
  comm.all_to_all(std::as_bytes(std::span(send)), sent_bytes, std::as_writable_bytes(std::span(received)),
                  received_bytes);
  const std::int64_t* at = received.data();
  for (ExpertLoad& load : all) {
    load.selected = *at++;
    load.local = *at++;
    for (std::vector<std::int64_t>& rows_E : load.rows_LE)
      for (std::int64_t& rows : rows_E) rows = *at++;
  }
  return all;
}

double local_activation_rate(std::span<const ExpertLoad> ranks) {
  std::int64_t selected = 0, local = 0;
  for (const ExpertLoad& rank : ranks) selected += rank.selected, local += rank.local;
  return selected > 0 ? static_cast<double>(local) / static_cast<double>(selected) : 1;
}

std::vector<std::vector<std::int64_t>> rows_by_expert(const ModelConfig& config, const Placement& placement,
                                                      std::span<const ExpertLoad> ranks) {
  FOE_CHECK(ranks.size() == placement.ranks.size(), "{} ranks of {}", ranks.size(), placement.ranks.size());
  std::vector<std::vector<std::int64_t>> rows_LE;
  for (int layer = 0; layer < config.num_layers(); ++layer) {
    std::vector<std::int64_t>& rows_E = rows_LE.emplace_back(expert_table(config, layer).with_rows());
    const bool everywhere = config.experts(layer).dense() && placement.members > 1;  // each runs its own tokens there
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      const std::vector<std::int64_t>& own = ranks[r].rows_LE[layer];
      for (std::size_t e = 0; e < own.size(); ++e) {
        std::int64_t& rows = rows_E[placement.ranks[r].experts(layer).begin + e];
        rows = own[e] + (everywhere ? rows : 0);
      }
    }
  }
  return rows_LE;
}

double fullest_over_median(std::vector<double> values) {
  if (values.empty()) return 1;
  std::sort(values.begin(), values.end());
  const double median = (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
  if (median > 0) return values.back() / median;
  return values.back() > 0 ? std::numeric_limits<double>::infinity() : 1;
}

double row_balance(std::span<const ExpertLoad> ranks) {
  std::size_t layers = 0;
  for (const ExpertLoad& rank : ranks) layers = std::max(layers, rank.rows_LE.size());
  double sum = 0;
  int counted = 0;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    std::vector<double> rows;
    for (const ExpertLoad& rank : ranks)
      if (const auto& rows_E = rank.rows_LE[layer]; !rows_E.empty())
        rows.push_back(static_cast<double>(std::accumulate(rows_E.begin(), rows_E.end(), std::int64_t{0})));
    if (rows.empty() || std::ranges::max(rows) == 0) continue;
    sum += fullest_over_median(rows);
    ++counted;
  }
  return counted > 0 ? sum / counted : 1;
}

}  // namespace foe
