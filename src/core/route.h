// Which experts tokens got, and with which weights, as plain data: to record it, and to route by it again.
//
// Shape letters: T tokens, L layers, K the most entries of a token (model/routing.h), E scores of the router, D model
// width, W words.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/share.h"

namespace foe {

// In place of an expert. A token has no more entries than those before:
inline constexpr std::int32_t kNoExpert = -1;
// The layer has not run this token, as the last layer runs only the rows that are sampled: all K entries are this.
inline constexpr std::int32_t kNotRun = -2;

// What T tokens get. If they are routed by it, the router decides where an entry is kNotRun.
struct Route {
  int layers = 0, entries = 0;            // L, K
  std::vector<std::int32_t> experts_TLK;  // ascending, then kNoExpert
  std::vector<float> weights_TLK;         // 0 where there is no expert

  int tokens() const { return layers == 0 ? 0 : static_cast<int>(experts_TLK.size()) / (layers * entries); }
};

// The route of a sequence's positions 0, 1, ..., which were tokens of a model.
struct SequenceRoute {
  std::string model;  // Model::identity
  std::vector<std::int32_t> tokens;
  Route route;
};

// How a record keeps a token: in a row of 32-bit words, experts [L, K], then weights [L, K], both as in Route, then, if
// they are recorded, the router's scores [L, E] and inputs [L, D]. Words of floats have their bits.
struct RouteForm {
  int layers = 0, entries = 0;
  int scores = 0, inputs = 0;  // E, D; 0: not recorded

  // Where a layer's part begins.
  std::size_t experts_at(int layer) const { return std::size_t{1} * layer * entries; }
  std::size_t weights_at(int layer) const { return experts_at(layers + layer); }
  std::size_t scores_at(int layer) const { return experts_at(2 * layers) + std::size_t{1} * layer * scores; }
  std::size_t inputs_at(int layer) const { return scores_at(layers) + std::size_t{1} * layer * inputs; }
  std::size_t words() const { return inputs_at(layers); }  // W
  // Copies a token's parts of some layers.
  void copy_layers(Range some, const std::int32_t* from, std::int32_t* to) const {
    const auto copy = [&](std::size_t begin, std::size_t end) { std::copy(from + begin, from + end, to + begin); };
    copy(experts_at(some.begin), experts_at(some.end));
    copy(weights_at(some.begin), weights_at(some.end));
    copy(scores_at(some.begin), scores_at(some.end));
    copy(inputs_at(some.begin), inputs_at(some.end));
  }

  bool operator==(const RouteForm&) const = default;
};

// A token that ran.
struct RoutedToken {
  std::int64_t sequence = 0;
  std::int64_t step = 0;
  std::int32_t token = 0;
  std::int32_t position = 0;
  std::int32_t owner = 0;  // the member that ran it (core/batch.h)
  std::int32_t padding = 0;
};

}  // namespace foe
