#include "model/model.h"

#include <algorithm>

#include "base/error.h"
#include "core/sum_blocks.h"
#include "model/affine.h"
#include "model/routing.h"
#include "placement/expert_nodes.h"
#include "weights/config_json.h"
#include "weights/identity.h"
#include "weights/tensor_folder.h"

namespace foe {

namespace {

// Returns the experts of each partial sum. In a federated model these are the experts of whole groups, otherwise those
// of each subtree that makes up the rank's share.
std::vector<Range> parts_of_experts(const Model& model, int layer, const SumPlan& sums) {
  const Share& share = model.share();
  const Range experts = share.experts(layer);
  std::vector<Range> parts;
  if (model.config.federated()) {
    const int each = experts.size() / share.streams();
    for (int first = experts.begin; first < experts.end; first += each) parts.push_back({first, first + each});
    return parts;
  }
  const ExpertTable table = expert_table(model.config, layer);
  const int place = model.placement.group_ranks() > 1 ? model.rank % model.placement.stage_ranks() : 0,
            begin = sums.begin()[place];
  for (int i = 0; i < sums.partials(place); ++i) {
    const SumPlan::Partial partial = sums.partial(place, i);
    const int first = begin + partial.first;
    parts.push_back(experts_of_terms(table, {first, first + partial.terms}));
  }
  return parts;
}

// Returns the affine experts of each stream: of its group in a federated model, else all.
std::vector<Range> parts_of_affine(const Model& model, int layer) {
  const ExpertTable table = expert_table(model.config, layer);
  if (table.affine() == 0) return {};
  if (!model.config.federated()) return {affine_experts(table, {0, table.groups})};
  std::vector<Range> parts;
  for (int g = model.share().groups.begin; g < model.share().groups.end; ++g)
    parts.push_back(affine_experts(table, {g, g + 1}));
  return parts;
}

std::vector<PackedMatrix> views_of_output(const Model& model, const LayerWeights& layer,
                                          std::span<const OutputBlock> blocks) {
  std::vector<PackedMatrix> views;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const OutputBlock& block = blocks[b];
    const bool own_stream = model.config.federated();  // then each stream has one block
    const PackedMatrix& o = layer.streams[own_stream ? b : 0].o;
    views.push_back(o.view(0, o.rows, own_stream ? 0 : block.at, block.depth));
  }
  return views;
}

LayerSums sums_of_layer(const Model& model, int l) {
  const LayerWeights& layer = model.weights.layers[l];
  LayerSums sums{.experts = SumPlan(model.placement.expert_begin[l])};
  if (!layer.streams.empty())
    sums.o_blocks = output_blocks(model.config, layer.streams[0].o.format, model.share().kv_heads);
  sums.o = views_of_output(model, layer, sums.o_blocks);
  if (!model.config.experts(l).dense()) {
    sums.expert_parts = parts_of_experts(model, l, sums.experts);
    sums.affine_parts = parts_of_affine(model, l);
    return sums;
  }
  const SumBlocks width = width_blocks(model.config, l);
  const Range own = width.within(model.share().expert_width(l));
  for (int b = own.begin; b <= own.end; ++b) sums.down_begin.push_back(width.begin[b] - width.begin[own.begin]);
  return sums;
}

// Throws Error if a token can have more experts than one sum takes in.
void check_summed(const ModelConfig& config, int layer) {
  const int parts = config.federated() ? config.expert_groups : 1;
  const char* where = config.federated() ? " per group" : "";
  const ExpertsConfig& experts = config.experts(layer);
  const int with_rows = dispatched_entries(config, layer, Dispatch::kPerRank);
  if (with_rows > kMaxSelected)
    fail("{}: expected at most {}{}, got {}",
         experts.shared > 0 ? "num_shared_experts + num_experts_per_tok" : "num_experts_per_tok", kMaxSelected, where,
         with_rows);
  // A constant expert has two terms.
  const int affine = std::min(experts.per_token, experts.constant + experts.copy + experts.zero) / parts;
  if (affine > kMaxSelected / 2)
    fail("num_experts_per_tok: expected at most {} affine experts{}, got {}", kMaxSelected / 2, where, affine);
}

}  // namespace

Model make_model(ModelConfig config, Placement placement, int rank, Weights weights) {
  SumPlan attention_sums(placement.attention_begin);
  Model model{.config = std::move(config),
              .placement = std::move(placement),
              .rank = rank,
              .weights = std::move(weights),
              .attention_sums = std::move(attention_sums)};
  const Share& share = model.share();
  if (share.idle()) return model;
  for (int l = 0; l < model.config.num_layers(); ++l) {
    LayerWeights& w = model.weights.layers[l];
    if (!share.runs(l)) {
      model.layers.push_back({.experts = SumPlan(model.placement.expert_begin[l])});
      continue;
    }
    if (model.config.experts_block(l).norm == BlockNorm::kShared) w.expert_norm_D = w.attention_norm_D;
    model.layers.push_back(sums_of_layer(model, l));
  }
  return model;
}

KvShape Model::kv_shape(KvType type, AttentionType attention) const {
  return {share().kv_heads.size(), config.heads().key_width, config.heads().head_value_width(), type, attention};
}

std::string formats_in_memory(const Model& model) {
  if (model.share().idle()) return "";
  const WeightFormats& f = model.weights.formats;
  return fmt::format("attention={},experts={},head={}", names(f.attention, f.kept_attention),
                     names(f.experts, f.kept_experts), names(f.head, f.kept_head));
}

Model load_model(const std::string& model_dir, const PlanChoice& plan, const Communicator& comm,
                 const FormatChoice& formats, int threads) {
  ModelConfig config = load_model_config(model_dir);
  for (int l = 0; l < config.num_layers(); ++l) check_summed(config, l);
  Placement placement = make_placement(config, plan, comm.size(), comm.nodes());
  const Share& share = placement.ranks[comm.rank()];
  ThreadPool pool(threads);
  Weights weights = share.idle() ? Weights{} : load_weights(pool, model_dir, config, share, formats);
  std::string identity;
  if (weights.folder)
    identity = model_identity(pool, *weights.folder);
  else if (comm.rank() == 0)  // idle, but what it is asked to run by must be of this model
    identity = model_identity(pool, TensorFolder(model_dir));
  Model model = make_model(std::move(config), std::move(placement), comm.rank(), std::move(weights));
  model.identity = std::move(identity);
  return model;
}

}  // namespace foe
