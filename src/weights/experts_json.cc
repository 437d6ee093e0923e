#include "weights/experts_json.h"

#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;
using namespace keys;

template <typename Visit>
void visit_router_keys(Visit&& visit) {
  using R = RouterConfig;
  visit("score", &R::score,
        {RouterScore::kSoftmax, RouterScore::kSigmoid, RouterScore::kSelectedSoftmax, RouterScore::kOne});
  visit("selection_bias", &R::selection_bias);
  visit("across_groups", &R::across_groups);
  visit("n_group", &R::groups);
  visit("topk_group", &R::top_groups);
  visit("group_score", &R::group_score, {GroupScore::kMax, GroupScore::kTopTwo});
  visit("top_p", &R::top_p);
  visit("norm", &R::norm, {RouterNorm::kNone, RouterNorm::kSelected, RouterNorm::kComputing});
  visit("scale", &R::scale);
  visit("norm_min", &R::norm_min);
  visit("bias", &R::bias);
}

template <typename Visit>
void visit_network_keys(Visit&& visit) {
  using E = ExpertsConfig;
  visit("hidden_act", &E::activation, {Activation::kSilu, Activation::kGeluTanh, Activation::kRelu2});
  visit("mlp_bias", &E::bias);
}

template <typename Visit>
void visit_gate_keys(Visit&& visit) {
  visit("swiglu_alpha", &GateShape::alpha);
  visit("swiglu_limit", &GateShape::limit);
  visit("up_offset", &GateShape::up_offset);
}

// All keys of experts alone, but for "router".
template <typename Visit>
void visit_expert_keys(Visit&& visit) {
  using E = ExpertsConfig;
  visit("num_shared_experts", &E::shared);
  visit("shared_intermediate_size", &E::shared_width);
  visit("shared_gate", &E::shared_gate);
  visit("constant_experts", &E::constant);
  visit("copy_experts", &E::copy);
  visit("zero_experts", &E::zero);
  visit("expert_storage", &E::storage, {ExpertStorage::kOwn, ExpertStorage::kSlices});
  visit("experts_of_layer", &E::of_layer);
}

void read_router(const json& object, RouterConfig& router) {
  KeyNames known;
  visit_router_keys(known);
  expect_only(object, "router", known.names);
  within("router", [&] {
    const RouterNorm said = router.norm;  // by norm_topk_prob
    visit_router_keys(KeyReader<RouterConfig>{object, router});
    if (said == RouterNorm::kSelected && router.norm != said)
      fail("norm: expected \"selected\" with norm_topk_prob = true, got \"{}\"", to_string(router.norm));
  });
}

}  // namespace

std::vector<std::string> expert_keys() {
  KeyNames keys{
      {"num_experts", "num_experts_per_tok", "intermediate_size", "moe_intermediate_size", "norm_topk_prob", "router"}};
  visit_expert_keys(keys);
  visit_network_keys(keys);
  visit_gate_keys(keys);
  return keys.names;
}

std::vector<std::string> network_keys() {
  KeyNames keys;
  visit_network_keys(keys);
  visit_gate_keys(keys);
  return keys.names;
}

void read_network_keys(const json& object, ExpertsConfig& e) {
  visit_network_keys(KeyReader<ExpertsConfig>{object, e});
  visit_gate_keys(KeyReader<GateShape>{object, e.gate});
}

void write_network_keys(const ExpertsConfig& e, const ExpertsConfig& other, nlohmann::ordered_json& object) {
  visit_network_keys(KeyWriter<ExpertsConfig>{object, e, other});
  visit_gate_keys(KeyWriter<GateShape>{object, e.gate, other.gate});
}

void read_expert_keys(const json& object, ExpertsConfig& e) {
  if (const json* router = find(object, "router")) {
    if (!e.router) fail("router: expected none in a model without experts, got {}", excerpt(*router));
    read_router(*router, *e.router);
  }
  visit_expert_keys(KeyReader<ExpertsConfig>{object, e});
}

void write_expert_keys(const ExpertsConfig& e, const ExpertsConfig& other, nlohmann::ordered_json& object) {
  if (e.router) {
    nlohmann::ordered_json router;
    visit_router_keys(KeyWriter<RouterConfig>{router, *e.router, *other.router});
    if (!router.empty()) object["router"] = router;
  }
  visit_expert_keys(KeyWriter<ExpertsConfig>{object, e, other});
}

}  // namespace foe
