// Finds the most likely tokens of a row of logits, which covers the vocabulary or a rank's part of it. Rows have 50,000
// logits and more, of which nearly all are of no interest, so nothing here sorts a row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace foe {

struct Candidate {
  std::int32_t token = 0;
  float logit = 0.0f;  // never NaN
};

// Whether a is more likely than b: it has the larger logit or, if these are equal, the lower token.
inline bool more_likely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// Returns the largest of the logits; -inf if there are none. A logit that is NaN counts as -inf, here and below.
float largest_logit(std::span<const float> logits);

// Appends the k most likely tokens, or all if there are fewer, in the order of more_likely(). The first logit belongs
// to `first_token`. The time is linear in the number of logits, whatever their order.
void append_most_likely(std::span<const float> logits, int k, std::int32_t first_token, std::vector<Candidate>& out);

// Writes weights[i] = e^((logits[i] - largest) / temperature), which is in [0, 1], or 0 if that is NaN or less than
// `least`. The temperature must be positive. The bits of a weight depend on nothing but its logit and the other
// arguments.
void softmax_weights(std::span<const float> logits, float largest, float temperature, float least, float* weights);

}  // namespace foe
