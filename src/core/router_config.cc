#include "core/router_config.h"

#include <cmath>

#include "base/error.h"

namespace foe {
namespace {

void check_group_limits(const RouterConfig& router, int experts, int per_token, int expert_groups,
                        const std::string& prefix) {
  const int n = router.groups, k = router.top_groups;
  if (n < 1 || experts % n != 0)
    fail("{}n_group: expected a divisor of the number of experts that the router scores = {}, got {}", prefix, experts,
         n);
  if (k < 1 || k > n) fail("{}topk_group: expected an integer from 1 to n_group = {}, got {}", prefix, n, k);
  if (k == n) return;
  if (n % expert_groups != 0 || k % expert_groups != 0)
    fail("{}n_group: expected it and topk_group to be multiples of expert_groups = {}, got {} and {}", prefix,
         expert_groups, n, k);
  if (experts / n * k < per_token)
    fail("{}topk_group: expected groups with at least num_experts_per_tok = {} experts, got {} of {} each", prefix,
         per_token, k, experts / n);
  if (router.group_score == GroupScore::kTopTwo && experts / n < 2)
    fail("{}group_score: expected \"max\" for groups of one expert, got \"top2_sum\"", prefix);
}

}  // namespace

void validate(const RouterConfig& router, int experts, int per_token, int expert_groups, const std::string& prefix) {
  check_group_limits(router, experts, per_token, router.across_groups ? 1 : expert_groups, prefix);
  if (!(router.top_p > 0 && router.top_p <= 1))
    fail("{}top_p: expected a number above 0 and at most 1, got {}", prefix, router.top_p);
  if (router.top_p < 1 && router.score != RouterScore::kSoftmax)
    fail("{}top_p: expected 1 with the score \"{}\", which makes no probabilities, got {}", prefix,
         to_string(router.score), router.top_p);
  if (router.norm != RouterNorm::kNone &&
      (router.score == RouterScore::kOne || router.score == RouterScore::kSelectedSoftmax))
    fail("{}norm: expected \"none\" with the score \"{}\", got \"{}\"", prefix, to_string(router.score),
         to_string(router.norm));
  if (!(router.norm_min >= 0) || !std::isfinite(router.norm_min))
    fail("{}norm_min: expected a finite number of at least 0, got {}", prefix, router.norm_min);
  if (router.norm_min > 0 && router.norm == RouterNorm::kNone)
    fail("{}norm_min: expected 0 with the norm \"none\", got {}", prefix, router.norm_min);
  if (!(router.scale > 0) || !std::isfinite(router.scale))
    fail("{}scale: expected a finite number above 0, got {}", prefix, router.scale);
}

const char* to_string(RouterScore value) {
  switch (value) {
    case RouterScore::kSoftmax:
      return "softmax";
    case RouterScore::kSigmoid:
      return "sigmoid";
    case RouterScore::kSelectedSoftmax:
      return "selected_softmax";
    case RouterScore::kOne:
      return "one";
  }
  return "?";
}

const char* to_string(GroupScore value) {
  return value == GroupScore::kMax ? "max" : "top2_sum";
}

const char* to_string(RouterNorm value) {
  switch (value) {
    case RouterNorm::kNone:
      return "none";
    case RouterNorm::kSelected:
      return "selected";
    case RouterNorm::kComputing:
      return "computing";
  }
  return "?";
}

}  // namespace foe
