// Reports on the ranks of a run, as JSON and as tables.
#pragma once

#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "comm/communicator.h"
#include "model/expert_load.h"

namespace foe {

struct Collective {
  const char* key;   // in JSON
  const char* name;  // in tables
  CommCounter CommCounters::*counter;
};
inline constexpr Collective kCollectives[] = {{"broadcast", "broadcast", &CommCounters::broadcast},
                                              {"sum", "sum", &CommCounters::sum},
                                              {"gather", "gather", &CommCounters::gather},
                                              {"all_to_all", "all-to-all", &CommCounters::all_to_all},
                                              {"send", "message", &CommCounters::send}};

// Returns an object for each rank. For each collective it has the calls, messages, bytes, bytes to other nodes, and
// seconds of moving data and of waiting for others.
nlohmann::json to_json(std::span<const CommCounters> ranks);

// Prints a line for each rank and each collective that it took part in.
void print_counters(std::FILE* out, std::span<const CommCounters> ranks);

// How the experts' work was spread (model/expert_load.h).
struct LoadReport {
  double local_activation_rate = 1;
  double row_balance = 1;
  std::vector<std::vector<std::int64_t>> rows_LE;
};
LoadReport report_load(const ModelConfig& config, const Placement& placement, std::span<const ExpertLoad> ranks);

nlohmann::json to_json(const LoadReport& load);

// Prints two lines, and one with the fullest expert of every layer if the model has several experts.
void print_load(std::FILE* out, const LoadReport& load);

}  // namespace foe
