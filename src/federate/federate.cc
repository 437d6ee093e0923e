#include "federate/federate.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "weights/finite.h"
#include "weights/model_folder.h"
#include "weights/packed_tensors.h"
#include "weights/rearranged.h"
#include "weights/stored_tensors.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

void require_routed_experts(const ModelConfig& config) {
  for (int l = 0; l < config.num_layers(); ++l) {
    const ExpertsConfig& e = config.experts(l);
    if (e.dense()) fail("expected a router in every layer, got none in layer {}", l);
    if (!expert_table(config, l).plain())
      fail("layer {}: expected routed experts alone, got {} shared, {} constant, {} copy and {} zero experts", l,
           e.shared, e.constant, e.copy, e.zero);
    if (e.storage != ExpertStorage::kOwn || e.of_layer != -1)
      fail("layer {}: expected experts with tensors of their own, got slices of one, or another layer's", l);
  }
}

bool has_a_row_for_each_expert(TensorRole role) {
  return role == TensorRole::kRouter || role == TensorRole::kRouterBias || role == TensorRole::kSelectionBias;
}

// What is written for one of a row's tensors. It may be a copy, so it is found again when it is written.
TensorSource source_of(ThreadPool& pool, const StoredTensors& stored, const ModelTensor& row, int index,
                       std::span<const int> experts_E) {
  const auto find = [&stored, &row, experts_E](int i) {
    const bool expert = row.format == TensorFormat::kExperts || row.count > 1;
    Tensor tensor = stored.find(row, expert ? experts_E[i] : i).tensor;
    return has_a_row_for_each_expert(row.role) ? rows_in_order(tensor, experts_E) : tensor;
  };
  TensorSource source = weight_source(name_of(row, index), find(index));
  source.write = [&pool, find, index, name = source.name](const TensorSource::Sink& sink) {
    const Tensor tensor = find(index);
    require_finite(pool, tensor);
    weight_source(name, tensor).write(sink);
  };
  return source;
}

}  // namespace

ModelConfig federated_config(const ModelConfig& config, const FederateOptions& options) {
  if (config.expert_groups != 1)
    fail("expert_groups: expected a model with one group, got one with {}", config.expert_groups);
  if (options.groups < 2) fail("--groups: expected at least 2, got {}", options.groups);
  require_routed_experts(config);
  ModelConfig to = config;
  to.model_type = "foe";
  to.expert_groups = options.groups;
  if (options.federation != Federation::kShared) {
    to.residual = Residual::kFederated;
    to.group_sync = options.sync;
  }
  for (int l = 0; l < to.num_layers(); ++l) {
    std::vector<BlockConfig>& blocks = to.layers[l].blocks;
    if (options.federation == Federation::kDelayed) {
      blocks[0].parallel = l > 0;
      to.experts(l).router->across_groups = true;
    }
    if (to.federated() && to.group_sync == GroupSync::kMean)
      for (BlockConfig& block : blocks)
        if (l > 0 || &block != &blocks[0]) block.residual_factor *= options.groups;
  }
  validate(to);
  return to;
}

std::vector<int> experts_by_group(std::span<const int> group_E, int groups) {
  std::vector<int> experts;
  for (int g = 0; g < groups; ++g)
    for (int e = 0; e < static_cast<int>(group_E.size()); ++e)
      if (group_E[e] == g) experts.push_back(e);
  return experts;
}

void write_federated(ThreadPool& pool, const std::string& model_dir, const ModelConfig& from, const ModelConfig& to,
                     const std::vector<std::vector<int>>& experts_LE, const std::string& out,
                     const std::function<void(std::size_t, std::size_t)>& progress) {
  const TensorFolder folder(model_dir);
  const StoredTensors stored(folder, from);
  check_plain(stored, from);
  std::vector<TensorSource> sources;
  for (const ModelTensor& row : stored.table().rows())
    for (int index = 0; index < row.count; ++index)
      sources.push_back(
          source_of(pool, stored, row, index,
                    row.layer < 0 ? std::span<const int>() : std::span<const int>(experts_LE[row.layer])));
  write_new_model_folder(out, to, std::move(sources), model_dir, progress);
}

const char* to_string(Federation value) {
  switch (value) {
    case Federation::kShared:
      return "shared";
    case Federation::kFederated:
      return "federated";
    case Federation::kDelayed:
      return "delayed";
  }
  return "?";
}

}  // namespace foe
