#include "weights/stored_tensors.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "weights/rearranged.h"
#include "weights/tensor_aliases.h"

namespace foe {

const std::vector<TensorAlias>& folder_aliases() {
  using enum TensorRole;
  using enum RowOrder;
  static const std::vector<TensorAlias> list = {
      {"block_sparse_moe.gate.weight", {kRouter}},  // Mixtral
      {"block_sparse_moe.experts.{}.w1.weight", {kGateProj}},
      {"block_sparse_moe.experts.{}.w3.weight", {kUpProj}},
      {"block_sparse_moe.experts.{}.w2.weight", {kDownProj}},
      {"mlp.router.weight", {kRouter}},  // gpt-oss
      {"mlp.router.bias", {kRouterBias}},
      {"mlp.experts.gate_up_proj_bias", {kGateBias, kUpBias}, true, nullptr, kTurns},
      {"mlp.experts.down_proj_bias", {kDownBias}, true},
      {"mlp.experts.gate_up_proj_blocks",
       {kGateProj, kUpProj},
       true,
       nullptr,
       kMxfp4,
       "mlp.experts.gate_up_proj_scales"},
      {"mlp.experts.down_proj_blocks", {kDownProj}, true, nullptr, kMxfp4, "mlp.experts.down_proj_scales"},
      {"mlp.experts.gate_up_proj", {kGateProj, kUpProj}, true, "mlp.experts.gate_up_proj_bias", kTransposed},
      {"mlp.experts.down_proj", {kDownProj}, true, "mlp.experts.down_proj_bias", kTransposed},
      {"mlp.experts.gate_up_proj", {kGateProj, kUpProj}, true},  // transformers 5, in memory
      {"mlp.experts.down_proj", {kDownProj}, true},
      {"self_attn.qkv_proj.weight", {kQProj, kKProj, kVProj}},  // Phi-3
      {"mlp.gate_up_proj.weight", {kGateProj, kUpProj}},
      {"mlp.shared_expert.gate_proj.weight", {kSharedGateProj}},  // Qwen2-MoE
      {"mlp.shared_expert.up_proj.weight", {kSharedUpProj}},
      {"mlp.shared_expert.down_proj.weight", {kSharedDownProj}},
      {"block_sparse_moe.e_score_correction_bias", {kSelectionBias}},       // MiniMax-M2
      {"mlp.moe_statics.e_score_correction_bias", {kSelectionBias}, true},  // ERNIE 4.5: [1, E]
      {"self_attn.query_layernorm.weight", {kQNorm}},                       // Hunyuan
      {"self_attn.key_layernorm.weight", {kKNorm}},
      {"mlp.gate.wg.weight", {kRouter}},
      {"mlp.shared_mlp.gate_proj.weight", {kSharedGateProj}},
      {"mlp.shared_mlp.up_proj.weight", {kSharedUpProj}},
      {"mlp.shared_mlp.down_proj.weight", {kSharedDownProj}},
      {"block_sparse_moe.router.layer.weight", {kRouter}},  // Granite-MoE
      {"block_sparse_moe.input_linear.weight", {kGateProj, kUpProj}, true},
      {"block_sparse_moe.output_linear.weight", {kDownProj}, true},
      {"shared_mlp.input_linear.weight", {kSharedGateProj, kSharedUpProj}},
      {"shared_mlp.output_linear.weight", {kSharedDownProj}},
  };
  return list;
}

namespace {

using enum TensorRole;

// Where one of a row's tensors is: in the tensor `name`, which must have this shape, as far as it follows.
struct Place {
  std::string name;
  std::vector<std::int64_t> shape;
  int slice = -1;  // if not -1, in this slice of the first dimension
  int row = 0;     // then from this row on
  int column = 0;  // and from this column on
  RowOrder order = RowOrder::kBelow;
  int step = 1;                // from row to row, where they take turns
  std::string exponents = {};  // of MXFP4: the other tensor
};

std::vector<std::int64_t> shape_in_file(const ModelTensor& row) {
  return row.slices_of.empty() ? row.shape : shape_of_all(row);
}

// Where one of a row's tensors is by our own names: slices of one network follow each other along the hidden width.
Place own_place(const ModelTensor& row, int index) {
  if (row.slices_of.empty()) return {name_of(row, index), row.shape};
  const bool columns = row.split == TensorSplit::kExpertColumns;
  const int first = index * (columns ? row.columns() : row.rows());
  return {row.slices_of, shape_of_all(row), -1, columns ? 0 : first, columns ? first : 0};
}

bool applies(const TensorAlias& alias, const TensorFolder& folder, const ModelTensor& row, const std::string& prefix) {
  return std::ranges::find(alias.roles, row.role) != alias.roles.end() &&
         (!alias.beside || folder.contains(prefix + alias.beside));
}

// Where a row is in the tensor of an alias in which rows take turns.
Place place_among(const TensorAlias& alias, std::string name, const std::string& prefix, const ModelTensor& row,
                  int index) {
  Place place{std::move(name), row.shape, index};
  place.order = alias.order;
  place.row = static_cast<int>(std::ranges::find(alias.roles, row.role) - alias.roles.begin());
  place.step = static_cast<int>(alias.roles.size());
  place.shape[0] *= place.step;
  if (alias.order == RowOrder::kTransposed) std::swap(place.shape[0], place.shape[1]);
  if (alias.order == RowOrder::kMxfp4) {
    place.exponents = prefix + alias.exponents;
    place.shape = {place.shape[0], row.shape[1] / kMxfp4Block, kMxfp4Block / 2};
  }
  place.shape.insert(place.shape.begin(), row.count);
  return place;
}

// Where a row is in the tensor of an alias.
Place place_in(const TensorTable& table, const TensorAlias& alias, std::string name, const std::string& prefix,
               const ModelTensor& row, int index) {
  if (alias.order != RowOrder::kBelow) return place_among(alias, std::move(name), prefix, row, index);
  Place place = own_place(row, index);
  place.name = std::move(name);
  place.shape[0] = 0;
  for (const TensorRole role : alias.roles) {
    if (role == row.role) place.row += static_cast<int>(place.shape[0]);
    place.shape[0] += shape_in_file(table.at(role, row.layer))[0];
  }
  if (alias.of_all) {
    place.shape.insert(place.shape.begin(), row.count);
    place.slice = index;
  }
  return place;
}

Place place_of(const TensorFolder& folder, const TensorTable& table, const ModelTensor& row, int index) {
  const bool gguf = folder.gguf();
  const std::string prefix = row.layer < 0 ? "" : fmt::format("{}.{}.", gguf ? "blk" : "model.layers", row.layer);
  std::string usual;  // for the message that there is none
  for (const TensorAlias& alias : gguf ? gguf_aliases() : folder_aliases()) {
    if (!applies(alias, folder, row, prefix)) continue;
    std::string name = prefix + fmt::format(fmt::runtime(alias.name), index);
    if (folder.contains(name)) return place_in(table, alias, std::move(name), prefix, row, index);
    if (gguf && usual.empty()) usual = std::move(name);
  }
  Place place = own_place(row, index);
  if (!usual.empty()) place.name = std::move(usual);
  return place;
}

// Where weights are in MXFP4: the bytes of both tensors, [E, ...].
struct Mxfp4Bytes {
  std::span<const std::byte> codes, exponents;
};

Mxfp4Bytes mxfp4_bytes(const TensorFolder& folder, const Place& place, const ModelTensor& row) {
  if (row.columns() % kMxfp4Block != 0)
    fail("{}: {}: expected matrices in MXFP4 to have a multiple of {} columns, got {}", folder.model_dir(), place.name,
         kMxfp4Block, row.columns());
  return {folder.bytes(place.name, place.shape),
          folder.bytes(place.exponents, {place.shape.begin(), place.shape.end() - 1})};
}

// Copies what is not in the order of a matrix.
Tensor copy_in_order(const TensorFolder& folder, const Place& place, const ModelTensor& row) {
  const RowsOf rows{place.row, place.step, row.shape[0]};
  if (place.order == RowOrder::kMxfp4) {
    const Mxfp4Bytes all = mxfp4_bytes(folder, place, row);
    const std::size_t codes = all.codes.size() / row.count, exponents = all.exponents.size() / row.count;
    return mxfp4_rows(all.codes.subspan(place.slice * codes, codes),
                      all.exponents.subspan(place.slice * exponents, exponents), row.columns(), rows, place.name);
  }
  const Tensor tensor = slice(folder.tensor(place.name, place.shape), place.slice);
  return place.order == RowOrder::kTransposed ? transposed_rows(tensor, rows) : strided_rows(tensor, rows);
}

}  // namespace

StoredTensor StoredTensors::find(const ModelTensor& row, int index) const {
  const Place place = place_of(folder_, table_, row, index);
  if (place.order != RowOrder::kBelow) return {copy_in_order(folder_, place, row), 0};
  // A matrix of one row is a vector in files that llama-quantize wrote, and a matrix in those of its converter.
  const bool one_row = folder_.gguf() && row.shape.size() == 2 && row.shape[0] == 1 && place.shape == row.shape &&
                       folder_.contains(place.name) && folder_.find(place.name)->shape.size() == 1;
  Tensor tensor = folder_.tensor(place.name, one_row ? std::vector{row.shape[1]} : place.shape);
  if (one_row) tensor.shape = row.shape;
  if (place.slice >= 0) tensor = slice(tensor, place.slice);
  if (tensor.shape[0] != row.shape[0]) tensor = rows(tensor, place.row, place.row + row.shape[0]);
  return {std::move(tensor), place.column};
}

std::vector<std::string> StoredTensors::check(const ModelTensor& row, int index) const {
  const Place place = place_of(folder_, table_, row, index);
  if (place.order == RowOrder::kMxfp4) {
    mxfp4_bytes(folder_, place, row);
    return {place.name, place.exponents};
  }
  if (place.order == RowOrder::kBelow)
    find(row, index);
  else
    folder_.tensor(place.name, place.shape);
  return {place.name};
}

bool StoredTensors::is_unused(std::string_view name) const {
  return std::ranges::any_of(unused_, [&](const std::string& beginning) { return name.starts_with(beginning); });
}

Tensor StoredTensors::head() const {
  const ModelTensor& head = table_.at(kHead);
  // A model that says its head is tied, and has one all the same, means the one that it has, as in transformers.
  return find(head.count > 0 || folder_.contains(head.name) ? head : table_.at(kEmbedding)).tensor;
}

}  // namespace foe
