// The most likely tokens of a row of logits, of the vocabulary or a rank's part of it. Rows are 50,000 logits long and
// more, and nearly all of them are of no interest: nothing here sorts a row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace foe {

struct Candidate {
  std::int32_t token = 0;
  float logit = 0.0f;  // never NaN
};

// The larger logit, the lower token among equals.
inline bool more_likely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// The largest of the logits, -inf if there is none. A logit that is NaN counts as -inf, here and below.
float largest_logit(std::span<const float> logits);

// Appends the k most likely tokens, or all if there are fewer, in the order of more_likely. The first logit is that of
// `first_token`. Linear in the number of logits, whatever their order.
void append_most_likely(std::span<const float> logits, int k, std::int32_t first_token, std::vector<Candidate>& out);

// weights[i] = e^((logits[i] - largest) / temperature): in [0, 1]; 0 where that is NaN or less than `least`. The
// temperature is positive. The same logit gives the same bits in every row.
void softmax_weights(std::span<const float> logits, float largest, float temperature, float least, float* weights);

}  // namespace foe
