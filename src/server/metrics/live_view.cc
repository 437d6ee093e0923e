#include "server/metrics/live_view.h"

#include <nlohmann/json.hpp>

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
              {"restarts", state.restarts},
              {"in_flight", state.in_flight},
              {"running", s.running},
              {"waiting", s.waiting},
              {"kv_usage", share(s.blocks_in_use, s.blocks)},
              {"prefix_hit_rate", share(s.prefix_hits, s.prefix_queries)},
              {"preemptions", s.preemptions},
              {"prompt_tokens", s.prompt_tokens},
              {"generation_tokens", s.generation_tokens},
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
                {"all-to-all", collective(sent.all_to_all)}}}}
      .dump(-1, ' ', false, json::error_handler_t::replace);  // the model's name may be any bytes
}

}  // namespace foe
