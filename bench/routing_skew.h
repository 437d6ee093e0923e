// Makes routing skewed by a given amount, to measure plans with it.
#pragma once

#include <vector>

#include "core/model_config.h"

namespace foe {

// Returns a bias for the router's scores with which one of `ranks` ranks in plan ep runs `skew` times as many rows as
// the median rank. (The median of two ranks is their mean.) That is in expectation for scores that are normally
// distributed with deviation 1, like those of random weights. All experts of the first rank get the same bias and the
// others none; a skew of 1 is no bias. Experts are selected from all, whatever the model's groups. Throws Error if no
// bias is large enough.
std::vector<float> skewed_router_bias(ModelConfig config, int ranks, double skew);

}  // namespace foe
