// What the model's authors recommend of sampling, for requests that do not say it themselves.
#pragma once

#include <optional>
#include <string>

#include "core/request.h"

namespace foe {

struct GenerationDefaults {
  SamplingParams sampling = {};
  std::optional<int> max_tokens = {};  // the most output tokens of a request that does not say how many
  std::string described = {};          // what differs from greedy, for the log; empty: nothing
  std::string path = {};               // the file it is from
};

// Reads temperature, top_p, top_k, min_p, repetition_penalty and max_new_tokens of generation_config.json, as vLLM
// does. With do_sample = true and no temperature, the temperature is 1. `from` is "auto" (the file in the model's
// folder, if there is one), "none", or a folder that must have one. Throws Error, naming file and key, for values that
// no request could have.
GenerationDefaults load_generation_defaults(const std::string& model_dir, const std::string& from);

}  // namespace foe
