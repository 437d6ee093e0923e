// An MoE model as a model with groups: the same tensors, with the experts of each layer in another order, and another
// configuration.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "core/model_config.h"

namespace foe {

enum class Federation {
  kShared,     // groups select, and all else stays: MoGE
  kFederated,  // FoE
  kDelayed,    // attention beside the experts of the layer below, which are selected across groups
};

struct FederateOptions {
  int groups = 0;  // H
  Federation federation = Federation::kFederated;
  GroupSync sync = GroupSync::kSum;
};

// Returns the configuration of the converted model. The weights of a token's experts are as they were: of the softmax
// over all E experts, or its shares of all K. With kSum what experts and attention add is added as it was. With kMean
// it is divided by H, so `residual_factor` is multiplied by H: r gets the same, and a group's own M_h, which its
// attention reads before the sum, is H times what its experts add. Throws Error for a model that has groups, that has
// layers without a router or experts that are not routed ones of their layer, or whose sizes the groups do not divide.
ModelConfig federated_config(const ModelConfig& config, const FederateOptions& options);

// Returns the experts of all groups, one group after the other, each in ascending order. group_E: the group of each.
std::vector<int> experts_by_group(std::span<const int> group_E, int groups);

// Writes the folder `out`: in layer l, expert i is what was expert experts_LE[l][i]. `from` is the configuration of the
// model in `model_dir`, whose matrices must be in f32, bf16 or f16 (which becomes f32), and `to` that of the result.
// `progress` is called with the bytes that are written and their total. Throws Error if the model is packed or in other
// formats, has weights that are not finite, something exists at `out`, or the disk refuses.
void write_federated(ThreadPool& pool, const std::string& model_dir, const ModelConfig& from, const ModelConfig& to,
                     const std::vector<std::vector<int>>& experts_LE, const std::string& out,
                     const std::function<void(std::size_t, std::size_t)>& progress);

const char* to_string(Federation value);

}  // namespace foe
