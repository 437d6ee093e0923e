// The key "layers" of config.json: what differs by layer, where the keys of a model's family do not say it.
//
//   "layers": [{"repeat": 3, "blocks": [{"attention": {"sliding_window": 128}},
//                                       {"experts": {"num_experts": 0, "intermediate_size": 1024}, "norm": "both"}]},
//              {"repeat": 9}]
//
// Each object describes `repeat` layers that are alike (without the key one, and the last object all that
// num_hidden_layers has left), by their blocks (one of attention, then one of experts). A block has the keys of
// attention_json.h, or of experts and those of experts_json.h; those that it does not have, or that are null, are as
// config.json has them for all layers. Besides it has "norm": "before", "residual_factor": 1.0 and "parallel": false,
// which are the defaults. docs/config.md has all keys as a table.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/model_config.h"

namespace foe {

// What config.json has for all layers.
struct BlockDefaults {
  AttentionConfig attention;
  ExpertsConfig experts;
  int dense_width = 0;  // of layers without a router; 0: each must say its own
};

// Reads the value of "layers" into config.layers, of which each is valid then. Throws Error naming the path of the key
// ("layers[1].blocks[0].attention.sliding_window"), what was expected and what was found, also for unknown keys. What
// `config` has besides its layers must have been read. `count` is num_hidden_layers, or 0 if that is not said.
void read_layers(const nlohmann::json& list, int count, const BlockDefaults& defaults, ModelConfig& config);

// Returns the value of "layers": what differs from `defaults`.
nlohmann::ordered_json write_layers(const ModelConfig& config, const BlockDefaults& defaults);

}  // namespace foe
