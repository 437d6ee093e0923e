// The choice of the next token.
#pragma once

#include <cstdint>
#include <span>

#include "core/request.h"

namespace foe {

// A pure function of its arguments: logits [V], and the number of output tokens before this one. Temperature first,
// then min_p, top_k and top_p in this order; among equal logits the lower id counts as the more likely one.
std::int32_t sample(std::span<const float> logits_V, const SamplingParams& params, int output_position);

// Throws Error naming the field and its range.
void validate(const SamplingParams& params);

}  // namespace foe
