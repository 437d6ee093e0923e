#include "bench/report.h"

#include <algorithm>
#include <numeric>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace foe {

nlohmann::json to_json(std::span<const CommCounters> ranks) {
  nlohmann::json out = nlohmann::json::array();
  for (const CommCounters& rank : ranks) {
    nlohmann::json& entry = out.emplace_back();
    for (const Collective& collective : kCollectives) {
      const CommCounter& c = rank.*collective.counter;
      entry[collective.key] = {{"calls", c.calls},
                               {"messages", c.messages},
                               {"bytes", c.bytes},
                               {"node_bytes", c.node_bytes},
                               {"moving_s", c.seconds - c.waiting_s},
                               {"waiting_s", c.waiting_s}};
    }
  }
  return out;
}

void print_counters(std::FILE* out, std::span<const CommCounters> ranks) {
  fmt::print(out, "{:<17} {:>8} {:>10} {:>14} {:>11} {:>11}\n", "by rank", "calls", "messages", "bytes", "moving ms",
             "waiting ms");
  for (std::size_t r = 0; r < ranks.size(); ++r)
    for (const Collective& collective : kCollectives) {
      const CommCounter& c = ranks[r].*collective.counter;
      if (c.calls > 0)
        fmt::print(out, "  {:<4} {:<10} {:>8} {:>10} {:>14} {:>11.2f} {:>11.2f}\n", r, collective.name, c.calls,
                   c.messages, c.bytes, 1e3 * (c.seconds - c.waiting_s), 1e3 * c.waiting_s);
    }
}

LoadReport report_load(const ModelConfig& config, const Placement& placement, std::span<const ExpertLoad> ranks) {
  return {local_activation_rate(ranks), row_balance(ranks), rows_by_expert(config, placement, ranks)};
}

nlohmann::json to_json(const LoadReport& load) {
  return {{"local_activation_rate", load.local_activation_rate},
          {"row_balance", load.row_balance},
          {"rows_by_layer_and_expert", load.rows_LE}};
}

void print_load(std::FILE* out, const LoadReport& load) {
  fmt::print(
      out,
      "experts: {:.1f} % of selections on the token's own rank; rows on the fullest rank {:.2f} times the median\n",
      100 * load.local_activation_rate, load.row_balance);
  if (load.rows_LE.front().size() < 2) return;
  fmt::print(out, "rows of the fullest expert over the mean, by layer:");
  for (const std::vector<std::int64_t>& rows : load.rows_LE) {
    const auto total = static_cast<double>(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
    const double mean = total / static_cast<double>(rows.size());
    fmt::print(out, " {:.2f}", mean > 0 ? static_cast<double>(std::ranges::max(rows)) / mean : 1);
  }
  fmt::print(out, "\n");
}

}  // namespace foe
