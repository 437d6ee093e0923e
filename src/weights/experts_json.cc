#include "weights/experts_json.h"

#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;

const std::vector<std::string> kRouterKeys = {"score",       "selection_bias", "n_group", "topk_group",
                                              "group_score", "top_p",          "norm",    "scale"};

void read_router(const json& object, RouterConfig& router) {
  using namespace keys;
  expect_only(object, "router", kRouterKeys);
  within("router", [&] {
    router.score =
        get_choice(object, "score", router.score,
                   {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSelectedSoftmax, RouterScore::kOne});
    router.selection_bias = get_bool(object, "selection_bias", router.selection_bias);
    router.groups = get_int(object, "n_group", router.groups);
    router.top_groups = get_int(object, "topk_group", router.top_groups);
    router.group_score = get_choice(object, "group_score", router.group_score, {GroupScore::kMax, GroupScore::kTopTwo});
    const RouterNorm said = router.norm;  // by norm_topk_prob
    router.top_p = get_double(object, "top_p", router.top_p);
    router.norm =
        get_choice(object, "norm", router.norm, {RouterNorm::kNone, RouterNorm::kSelected, RouterNorm::kComputing});
    if (said == RouterNorm::kSelected && router.norm != said)
      fail("norm: expected \"selected\" with norm_topk_prob = true, got \"{}\"", to_string(router.norm));
    router.scale = get_double(object, "scale", router.scale);
  });
}

}  // namespace

const std::vector<std::string>& expert_keys() {
  static const std::vector<std::string> keys = {"num_experts",
                                                "num_experts_per_tok",
                                                "intermediate_size",
                                                "moe_intermediate_size",
                                                "hidden_act",
                                                "norm_topk_prob",
                                                "router",
                                                "num_shared_experts",
                                                "shared_gate",
                                                "constant_experts",
                                                "copy_experts",
                                                "zero_experts",
                                                "expert_storage",
                                                "experts_of_layer"};
  return keys;
}

Activation read_activation(const json& object, Activation otherwise) {
  return keys::get_choice(object, "hidden_act", otherwise,
                          {Activation::kSilu, Activation::kGeluTanh, Activation::kRelu2});
}

void read_expert_keys(const json& object, ExpertsConfig& e) {
  using namespace keys;
  if (const json* router = find(object, "router")) {
    if (!e.router) fail("router: expected none in a model without experts, got {}", excerpt(*router));
    read_router(*router, *e.router);
  }
  e.shared = get_int(object, "num_shared_experts", e.shared);
  e.shared_gate = get_bool(object, "shared_gate", e.shared_gate);
  e.constant = get_int(object, "constant_experts", e.constant);
  e.copy = get_int(object, "copy_experts", e.copy);
  e.zero = get_int(object, "zero_experts", e.zero);
  e.storage = get_choice(object, "expert_storage", e.storage, {ExpertStorage::kOwn, ExpertStorage::kSlices});
  e.of_layer = get_int(object, "experts_of_layer", e.of_layer);
}

void write_expert_keys(const ExpertsConfig& e, const ExpertsConfig& other, nlohmann::ordered_json& object) {
  using namespace keys;
  if (e.router) {
    const RouterConfig &r = *e.router, &said = *other.router;
    nlohmann::ordered_json router;
    write_other(router, "score", to_string(r.score), to_string(said.score));
    write_other(router, "selection_bias", r.selection_bias, said.selection_bias);
    write_other(router, "n_group", r.groups, said.groups);
    write_other(router, "topk_group", r.top_groups, said.top_groups);
    write_other(router, "group_score", to_string(r.group_score), to_string(said.group_score));
    write_other(router, "top_p", r.top_p, said.top_p);
    write_other(router, "norm", to_string(r.norm), to_string(said.norm));
    write_other(router, "scale", r.scale, said.scale);
    if (!router.empty()) object["router"] = router;
  }
  write_other(object, "num_shared_experts", e.shared, other.shared);
  write_other(object, "shared_gate", e.shared_gate, other.shared_gate);
  write_other(object, "constant_experts", e.constant, other.constant);
  write_other(object, "copy_experts", e.copy, other.copy);
  write_other(object, "zero_experts", e.zero, other.zero);
  write_other(object, "expert_storage", to_string(e.storage), to_string(other.storage));
  write_other(object, "experts_of_layer", e.of_layer, other.of_layer);
}

}  // namespace foe
