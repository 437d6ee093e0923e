// Skewed routing to order, to see what each plan makes of it.
#pragma once

#include <vector>

#include "core/model_config.h"

namespace foe {

// A bias on the router's scores that makes one rank of plan ep, with `ranks` ranks, the fullest: it runs `skew` times
// as many rows as the median rank, in expectation over scores that are normal with deviation 1, as those of random
// weights are. (The median of two ranks is their mean.) All experts of the first rank get the same bias and the others
// none; a skew of 1 is no bias at all. Experts are selected from all, whatever the model's groups. Throws Error where
// no bias does it.
std::vector<float> skewed_router_bias(ModelConfig config, int ranks, double skew);

}  // namespace foe
