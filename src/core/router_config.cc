#include "core/router_config.h"

#include <cmath>

#include "base/error.h"

namespace foe {
namespace {

void check_group_limits(const RouterConfig& router, int experts, int per_token, int expert_groups) {
  const int n = router.groups, k = router.top_groups;
  if (n < 1 || experts % n != 0)
    fail("n_group: expected a divisor of the number of experts that the router scores = {}, got {}", experts, n);
  if (k < 1 || k > n) fail("topk_group: expected an integer from 1 to n_group = {}, got {}", n, k);
  if (k == n) return;
  if (n % expert_groups != 0 || k % expert_groups != 0)
    fail("n_group and topk_group: expected multiples of expert_groups = {}, got {} and {}", expert_groups, n, k);
  if (experts / n * k < per_token)
    fail("topk_group: expected groups with at least num_experts_per_tok = {} experts, got {} of {} each", per_token, k,
         experts / n);
  if (router.group_score == GroupScore::kTopTwo && experts / n < 2)
    fail("n_group: expected groups of at least two experts, whose scores are added, got {} groups of {}", n,
         experts / n);
}

}  // namespace

void validate(const RouterConfig& router, int experts, int per_token, int expert_groups) {
  check_group_limits(router, experts, per_token, expert_groups);
  if (!(router.top_p > 0 && router.top_p <= 1))
    fail("top_p: expected a number above 0 and at most 1, got {}", router.top_p);
  if (router.top_p < 1 && router.score != RouterScore::kSoftmax)
    fail("top_p: expected 1 with the scores of {}, which are no probabilities, got {}", to_string(router.score),
         router.top_p);
  if (router.norm != RouterNorm::kNone &&
      (router.score == RouterScore::kOne || router.score == RouterScore::kSelectedSoftmax))
    fail("norm_topk_prob: expected none with the weights of {}, got {}", to_string(router.score),
         to_string(router.norm));
  if (!(router.scale > 0) || !std::isfinite(router.scale))
    fail("routed_scaling_factor: expected a finite number above 0, got {}", router.scale);
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
