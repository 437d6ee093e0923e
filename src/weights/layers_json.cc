#include "weights/layers_json.h"

#include <algorithm>
#include <string>
#include <vector>

#include "weights/attention_json.h"
#include "weights/experts_json.h"
#include "weights/json_keys.h"

namespace foe {
namespace {

using nlohmann::json;
using namespace keys;

constexpr int kMaxLayers = 1 << 10;

AttentionConfig read_attention(const json& object, const BlockDefaults& defaults) {
  expect_only(object, "attention", attention_keys());
  AttentionConfig attention = defaults.attention;
  within("attention", [&] { read_attention_keys(object, attention); });
  return attention;
}

// What `network` computes between its products, and whether it has biases, as `other` has it.
ExpertsConfig like(const ExpertsConfig& other, ExpertsConfig network) {
  network.activation = other.activation;
  network.gate = other.gate;
  network.bias = other.bias;
  return network;
}

ExpertsConfig read_dense(const json& object, const BlockDefaults& defaults) {
  const std::vector<std::string> network = network_keys();
  for (const auto& [key, value] : object.items())
    if (key != "num_experts" && key != "intermediate_size" && std::ranges::count(network, key) == 0 && !value.is_null())
      fail("{}: expected none in a layer without a router (num_experts = 0), got {}", key, excerpt(value));
  const int width = defaults.experts.dense() ? defaults.experts.width : defaults.dense_width;
  ExpertsConfig e = like(defaults.experts, dense_experts(width));
  e.width = width > 0 ? get_int(object, "intermediate_size", width) : get_int(object, "intermediate_size");
  read_network_keys(object, e);
  return e;
}

ExpertsConfig read_experts(const json& object, const BlockDefaults& defaults) {
  expect_only(object, "experts", expert_keys());
  const bool dense = defaults.experts.dense();
  ExpertsConfig e = dense ? like(defaults.experts, {.router = RouterConfig{}}) : defaults.experts;
  within("experts", [&] {
    e.count = get_int(object, "num_experts", e.count);
    if (e.count == 0) {
      e = read_dense(object, defaults);
      return;
    }
    if (const json* width = find(object, "intermediate_size"))
      fail("intermediate_size: expected none in a layer with a router (num_experts = {}), got {}", e.count,
           excerpt(*width));
    e.per_token = dense ? get_int(object, "num_experts_per_tok") : get_int(object, "num_experts_per_tok", e.per_token);
    e.width = dense ? get_int(object, "moe_intermediate_size") : get_int(object, "moe_intermediate_size", e.width);
    read_network_keys(object, e);
    if (find(object, "norm_topk_prob"))
      e.router->norm = get_bool(object, "norm_topk_prob", false) ? RouterNorm::kSelected : RouterNorm::kNone;
    read_expert_keys(object, e);
  });
  return e;
}

BlockConfig read_block(const json& object, const BlockDefaults& defaults) {
  BlockConfig block;
  if (const json* attention = find(object, "attention"))
    block.computes = read_attention(*attention, defaults);
  else
    block.computes = read_experts(*find(object, "experts"), defaults);
  block.norm = get_choice(object, "norm", block.norm,
                          {BlockNorm::kBefore, BlockNorm::kAfter, BlockNorm::kBoth, BlockNorm::kShared});
  block.residual_factor = get_double(object, "residual_factor", block.residual_factor);
  block.parallel = get_bool(object, "parallel", block.parallel);
  return block;
}

LayerConfig read_layer(const json& object, const BlockDefaults& defaults) {
  const json* blocks = find(object, "blocks");
  if (!blocks) return {{{.computes = defaults.attention}, {.computes = defaults.experts}}};
  if (!blocks->is_array()) fail("blocks: expected a list of objects, got {}", excerpt(*blocks));
  LayerConfig layer;
  for (const json& block : *blocks) {
    const std::string path = fmt::format("blocks[{}]", layer.blocks.size());
    expect_only(block, path, {"attention", "experts", "norm", "residual_factor", "parallel"});
    if (!find(block, "attention") == !find(block, "experts"))
      fail("{}: expected one of attention and experts, got {}", path, find(block, "attention") ? "both" : "neither");
    within(path, [&] { layer.blocks.push_back(read_block(block, defaults)); });
  }
  return layer;
}

nlohmann::ordered_json write_experts(const ExpertsConfig& e, const ExpertsConfig& other) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  write_network_keys(e, other, object);
  if (e.dense()) {
    object["num_experts"] = 0;
    object["intermediate_size"] = e.width;
    return object;
  }
  ExpertsConfig base = other.dense() ? ExpertsConfig{.router = RouterConfig{}} : other;
  write_other(object, "num_experts", e.count, base.count);
  write_other(object, "num_experts_per_tok", e.per_token, base.per_token);
  write_other(object, "moe_intermediate_size", e.width, base.width);
  if (e.router->norm != base.router->norm) {
    const bool selected = e.router->norm == RouterNorm::kSelected;
    object["norm_topk_prob"] = selected;
    base.router->norm = selected ? RouterNorm::kSelected : RouterNorm::kNone;
  }
  write_expert_keys(e, base, object);
  return object;
}

nlohmann::ordered_json write_block(const BlockConfig& block, const BlockDefaults& defaults) {
  const BlockConfig plain;
  nlohmann::ordered_json object;
  if (const auto* attention = std::get_if<AttentionConfig>(&block.computes)) {
    object["attention"] = nlohmann::ordered_json::object();
    write_attention_keys(*attention, defaults.attention, object["attention"]);
  } else {
    object["experts"] = write_experts(std::get<ExpertsConfig>(block.computes), defaults.experts);
  }
  write_other(object, "norm", to_string(block.norm), to_string(plain.norm));
  write_other(object, "residual_factor", block.residual_factor, plain.residual_factor);
  write_other(object, "parallel", block.parallel, plain.parallel);
  return object;
}

}  // namespace

void read_layers(const json& list, int count, const BlockDefaults& defaults, ModelConfig& config) {
  if (!list.is_array() || list.empty()) fail("layers: expected a list of objects, got {}", excerpt(list));
  config.layers.clear();
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string path = fmt::format("layers[{}]", i);
    expect_only(list[i], path, {"repeat", "blocks"});
    const int index = config.num_layers();
    const bool last = i + 1 == list.size();
    int repeat = last && count <= kMaxLayers ? std::max(1, count - index) : 1;
    within(path, [&] {
      repeat = get_int(list[i], "repeat", repeat);
      if (repeat < 1 || repeat > kMaxLayers - index)
        fail("repeat: expected an integer from 1 to {} ({} layers in all), got {}", kMaxLayers - index, kMaxLayers,
             repeat);
      config.layers.push_back(read_layer(list[i], defaults));
      for_each_attention(config, [&](AttentionConfig& attention) {
        if (attention.window >= config.max_position_embeddings) attention.window = 0;  // it hides nothing
      });
    });
    validate_layer(config, index, path + ".");
    config.layers.insert(config.layers.end(), repeat - 1, LayerConfig(config.layers.back()));
  }
}

nlohmann::ordered_json write_layers(const ModelConfig& config, const BlockDefaults& defaults) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (int l = 0, end; l < config.num_layers(); l = end) {
    for (end = l + 1; end < config.num_layers() && config.layers[end] == config.layers[l];) ++end;
    nlohmann::ordered_json layer;
    if (end - l > 1) layer["repeat"] = end - l;
    for (const BlockConfig& block : config.layers[l].blocks) layer["blocks"].push_back(write_block(block, defaults));
    list.push_back(std::move(layer));
  }
  return list;
}

}  // namespace foe
