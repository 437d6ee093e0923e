#include "server/metrics/live_view.h"

#include <chrono>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "core/expert_table.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

json milliseconds(const RecentTimes& times) {
  json values = json::array();
  for (const double seconds : times.percentiles()) values.push_back(1000 * seconds);
  return values;
}

json collective(const CommCounter& c) {
  return {{"calls", c.calls}, {"bytes", c.bytes}, {"seconds", c.seconds}, {"waiting_seconds", c.waiting_s}};
}

}  // namespace

std::int64_t TokensBySecond::now() {
  return std::chrono::duration_cast<std::chrono::seconds>(Clock::now().time_since_epoch()).count();
}

void TokensBySecond::add(std::int64_t tokens, std::int64_t second) {
  const std::size_t place = static_cast<std::size_t>(second) % kPlaces;
  if (std::exchange(second_[place], second) != second) tokens_[place] = 0;
  tokens_[place] += tokens;
}

TokensBySecond::Counts TokensBySecond::last(std::int64_t second) const {
  Counts counts{};
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::int64_t past = second - static_cast<std::int64_t>(counts.size() - i);
    const std::size_t place = static_cast<std::size_t>(past) % kPlaces;
    if (past >= 0 && second_[place] == past) counts[i] = tokens_[place];
  }
  return counts;
}

EngineStats with_all_layers(EngineStats stats, const ModelConfig& config) {
  if (!stats.expert_rows.empty() || config.dense()) return stats;
  for (int layer = 0; layer < config.num_layers(); ++layer)
    stats.expert_rows.emplace_back(expert_table(config, layer).with_rows());
  return stats;
}

std::string live_body(const LiveState& state) {
  const SchedulerStats& s = state.stats.scheduler;
  const auto share = [](std::int64_t part, std::int64_t all) {
    return all > 0 ? static_cast<double>(part) / static_cast<double>(all) : 0.0;
  };
  CommCounters sent;
  for (const CommCounters& rank : state.stats.comm) sent = sent + rank;
  return json{{"model", state.model},
              {"plan", state.plan},
              {"ranks", state.ranks},
              {"context", state.context},
              {"up", state.up},
              {"chat", state.chat},
              {"needs_key", state.needs_key},
              {"restarts", state.restarts},
              {"in_flight", state.in_flight},
              {"running", s.running},
              {"waiting", s.waiting},
              {"kv_usage", share(s.blocks_in_use, s.blocks)},
              {"prefix_hit_rate", share(s.prefix_hits, s.prefix_queries)},
              {"preemptions", s.preemptions},
              {"prompt_tokens", s.prompt_tokens},
              {"generation_tokens", s.generation_tokens},
              {"tokens_by_second", state.tokens_by_second},
              {"local_activation_rate", state.stats.local_activation_rate},
              {"latencies_ms",
               {{"first token", milliseconds(state.latencies.first_token)},
                {"next token", milliseconds(state.latencies.next_token)},
                {"whole answer", milliseconds(state.latencies.whole)}}},
              {"expert_rows", state.stats.expert_rows},
              {"collectives",
               {{"broadcast", collective(sent.broadcast)},
                {"sum", collective(sent.sum)},
                {"gather", collective(sent.gather)},
                {"all-to-all", collective(sent.all_to_all)},
                {"message", collective(sent.send)}}}}
      .dump(-1, ' ', false, json::error_handler_t::replace);  // the model's name may be any bytes
}

}  // namespace foe
