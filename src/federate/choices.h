// Which experts tokens chose in a layer, as a record of routes has it, and what they lose when experts are in groups.
//
// Shape letters: T tokens, K experts of a token, E experts, L layers.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/model_config.h"
#include "trace/route_file.h"

namespace foe {

class Choices {
 public:
  // Of a layer with so many experts, of which each token has `per_token`.
  Choices(int experts, int per_token) : experts_(experts), per_token_(per_token) {}

  // Adds a token: K experts, each once, and their weights.
  void add(std::span<const std::int32_t> experts_K, std::span<const float> weights_K);

  int experts() const { return experts_; }      // E
  int per_token() const { return per_token_; }  // K
  int tokens() const { return static_cast<int>(expert_TK_.size()) / per_token_; }
  // A token's experts by descending weight, on ties the lower one first, and their weights in units of 2^-24: so sums
  // are exact in any order.
  std::span<const std::int32_t> experts_of(int token) const { return row(expert_TK_, token); }
  std::span<const std::int64_t> weights_of(int token) const { return row(weight_TK_, token); }

 private:
  template <typename T>
  std::span<const T> row(const std::vector<T>& all_TK, int token) const {
    return {all_TK.data() + static_cast<std::size_t>(token) * per_token_, static_cast<std::size_t>(per_token_)};
  }

  int experts_, per_token_;
  std::vector<std::int32_t> expert_TK_;
  std::vector<std::int64_t> weight_TK_;
};

// Of tokens' choices those that they cannot keep: a token keeps the K / H best (rounded up) that it has in each of H
// groups. In place of each other one it gets an expert that it did not choose. `weight` is the sum of their weights, in
// the same units.
struct Lost {
  std::int64_t choices = 0, weight = 0;

  bool operator==(const Lost&) const = default;
};
int kept_per_group(const Choices& choices, int groups);
// group_E: the group of each expert.
Lost lost(const Choices& choices, std::span<const int> group_E, int groups);
// The sum of all weights.
std::int64_t total_weight(const Choices& choices);

// Returns what a record's tokens chose in each layer. `identity` (weights/identity.h) is that of the model, whose
// layers must all have a router and no experts but routed ones. Throws Error for a record of another model, or one
// without a token in a layer.
std::vector<Choices> choices_of(const RouteFile& record, const ModelConfig& config, const std::string& identity);

}  // namespace foe
