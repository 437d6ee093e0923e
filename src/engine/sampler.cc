#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace foe {
namespace {

struct Candidate {
  std::int32_t id;
  double weight;  // e^((logit - largest) / temperature)
};

bool more_likely(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

// The fewest most likely candidates whose weights reach the share `top_p` of all; sorted.
void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  double total = 0.0, sum = 0.0;
  for (const Candidate& c : candidates) total += c.weight;
  std::size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < top_p * total)) sum += candidates[kept++].weight;
  candidates.resize(kept);
}

}  // namespace

std::int32_t sample(std::span<const float> logits_V, const SamplingParams& params, int output_position) {
  const auto largest = std::max_element(logits_V.begin(), logits_V.end());
  if (params.temperature == 0.0f) return static_cast<std::int32_t>(largest - logits_V.begin());

  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < logits_V.size(); ++i) {
    const double weight = std::exp((static_cast<double>(logits_V[i]) - *largest) / params.temperature);
    if (weight > 0.0 && weight >= params.min_p) candidates.push_back({static_cast<std::int32_t>(i), weight});
  }
  // Not finite logits leave no candidate: answer as greedy sampling does rather than fail the batch.
  if (candidates.empty()) return static_cast<std::int32_t>(largest - logits_V.begin());
  const bool top_k = params.top_k > 0 && static_cast<std::size_t>(params.top_k) < candidates.size();
  if (top_k) {
    std::nth_element(candidates.begin(), candidates.begin() + params.top_k, candidates.end(), more_likely);
    candidates.resize(params.top_k);
  }
  if (top_k || params.top_p < 1.0f) std::sort(candidates.begin(), candidates.end(), more_likely);
  if (params.top_p < 1.0f) keep_top_p(candidates, params.top_p);

  double total = 0.0;
  for (const Candidate& c : candidates) total += c.weight;
  double left = random_unit(params.seed, static_cast<std::uint64_t>(output_position)) * total;
  for (const Candidate& c : candidates)
    if ((left -= c.weight) < 0.0) return c.id;
  return candidates.back().id;  // rounding
}

void validate(const SamplingParams& p) {
  // Written so that NaN fails.
  if (!(p.temperature >= 0.0f && p.temperature <= 100.0f))
    fail("temperature: expected 0 to 100, got {}", p.temperature);
  if (!(p.top_p > 0.0f && p.top_p <= 1.0f)) fail("top_p: expected more than 0 and at most 1, got {}", p.top_p);
  if (p.top_k < 0) fail("top_k: expected 0 (all) or more, got {}", p.top_k);
  if (!(p.min_p >= 0.0f && p.min_p <= 1.0f)) fail("min_p: expected 0 to 1, got {}", p.min_p);
}

}  // namespace foe
