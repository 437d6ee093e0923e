#include "weights/experts_json.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 8> kRouterKeys = {"score",       "selection_bias", "n_group", "topk_group",
                                                         "group_score", "top_p",          "norm",    "scale"};

// Puts the router's name before a message about one of its keys.
template <typename Read>
auto of_router(const Read& read) {
  try {
    return read();
  } catch (const Error& error) {
    fail("router.{}", error.what());
  }
}

void read_router(const json& object, RouterConfig& router) {
  using namespace keys;
  if (!object.is_object()) fail("router: expected an object, got {}", excerpt(object));
  for (const auto& [key, value] : object.items())
    if (std::ranges::find(kRouterKeys, key) == kRouterKeys.end())
      fail("router: expected no key but {}, got {}", fmt::join(kRouterKeys, ", "), excerpt(json(key)));
  of_router([&] {
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

template <typename T>
void write_other(nlohmann::ordered_json& object, const char* key, const T& value, const T& otherwise) {
  if (value != otherwise) object[key] = value;
}

}  // namespace

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

void write_expert_keys(const ExpertsConfig& e, nlohmann::ordered_json& object) {
  const ExpertsConfig plain;
  if (e.router) {
    const RouterConfig &r = *e.router, other = {};
    nlohmann::ordered_json router;
    write_other<std::string>(router, "score", to_string(r.score), to_string(other.score));
    write_other(router, "selection_bias", r.selection_bias, other.selection_bias);
    write_other(router, "n_group", r.groups, other.groups);
    write_other(router, "topk_group", r.top_groups, other.top_groups);
    write_other<std::string>(router, "group_score", to_string(r.group_score), to_string(other.group_score));
    write_other(router, "top_p", r.top_p, other.top_p);
    // What norm_topk_prob says needs no other key.
    if (r.norm == RouterNorm::kComputing) router["norm"] = to_string(r.norm);
    write_other(router, "scale", r.scale, other.scale);
    if (!router.empty()) object["router"] = router;
  }
  write_other(object, "num_shared_experts", e.shared, plain.shared);
  write_other(object, "shared_gate", e.shared_gate, plain.shared_gate);
  write_other(object, "constant_experts", e.constant, plain.constant);
  write_other(object, "copy_experts", e.copy, plain.copy);
  write_other(object, "zero_experts", e.zero, plain.zero);
  write_other<std::string>(object, "expert_storage", to_string(e.storage), to_string(plain.storage));
  write_other(object, "experts_of_layer", e.of_layer, plain.of_layer);
}

}  // namespace foe
