// Recording what a step routes, and routing by a record instead of the router (core/route.h). Both are off by default.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "core/route.h"
#include "placement/placement.h"

namespace foe {

struct Step;

struct RecordOptions {
  bool routes = false;                  // experts and weights; without it the others do not count
  bool scores = false, inputs = false;  // the router's, too
};

// Returns the form of a record of the model; without layers if nothing is recorded.
RouteForm record_form(const ModelConfig& config, const RecordOptions& options);
// Returns the ranks that report what a stage's layers route, by member: of the ranks with the same tokens, the first.
std::vector<int> route_reporters(const Placement& placement, int stage = 0);

// Throws Error unless the model can run tokens with these experts and weights: each in range and once, no more than the
// router can select, and weights that are finite and not negative.
void check_route(const Route& route, const ModelConfig& config);
// Throws Error unless the record has the tokens of the prompt, as far as both reach.
void check_tokens(const SequenceRoute& route, std::span<const std::int32_t> prompt);
// Both, for a record that must be of these weights (Model::identity), too.
void check_route(const SequenceRoute& route, const ModelConfig& config, const std::string& identity,
                 std::span<const std::int32_t> prompt);

// For route() in model/experts_block.cc: before the scores are replaced, and when the experts are selected. The second
// puts what the batch has instead of the router's choice into s.state.routing, and records what is there then.
void record_scores(Step& s, int layer);
void replay_and_record(Step& s, int layer);
// For forward(): begins the record of a step's rows.
void begin_record(Step& s);

}  // namespace foe
