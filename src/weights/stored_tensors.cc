#include "weights/stored_tensors.h"

#include <fmt/format.h>

namespace foe {
namespace {

using enum TensorRole;

// A name that other families give tensors of a role. A fused tensor [E, ...] has those of all experts, and perhaps of
// several roles, one below the other.
struct Alias {
  TensorRole role;
  const char* name;  // after the layer's prefix; {} is the expert
  int part = 0, parts = 1;
  bool fused = false;
};
constexpr Alias kAliases[] = {
    {kRouter, "block_sparse_moe.gate.weight"},
    {kGateProj, "mlp.experts.gate_up_proj", 0, 2, true},
    {kUpProj, "mlp.experts.gate_up_proj", 1, 2, true},
    {kDownProj, "mlp.experts.down_proj", 0, 1, true},
    {kGateProj, "block_sparse_moe.experts.{}.w1.weight"},
    {kUpProj, "block_sparse_moe.experts.{}.w3.weight"},
    {kDownProj, "block_sparse_moe.experts.{}.w2.weight"},
};

// Where one of a row's tensors is: in the tensor `name`, which must have this shape, as far as it follows.
struct Place {
  std::string name;
  std::vector<std::int64_t> shape;
  int slice = -1;  // if not -1, in this slice of the first dimension
  int row = 0;     // then from this row on
  int column = 0;  // and from this column on
};

Place slice_of_network(const ModelTensor& row, int index) {
  const bool columns = row.split == TensorSplit::kExpertColumns;
  const int first = index * (columns ? row.columns() : row.rows());
  return {row.slices_of, shape_of_all(row), -1, columns ? 0 : first, columns ? first : 0};
}

Place place_of(const TensorFolder& folder, const ModelTensor& row, int index) {
  if (!row.slices_of.empty()) return slice_of_network(row, index);
  for (const Alias& alias : kAliases) {
    if (alias.role != row.role) continue;
    std::string name = fmt::format("model.layers.{}.", row.layer) + fmt::format(fmt::runtime(alias.name), index);
    if (!folder.contains(name)) continue;
    if (!alias.fused) return {std::move(name), row.shape};
    return {std::move(name), {row.count, alias.parts * row.shape[0], row.shape[1]}, index, alias.part * row.rows()};
  }
  return {name_of(row, index), row.shape};
}

}  // namespace

StoredTensor StoredTensors::find(const ModelTensor& row, int index) const {
  const Place place = place_of(folder_, row, index);
  Tensor tensor = folder_.tensor(place.name, place.shape);
  if (place.slice >= 0) tensor = slice(tensor, place.slice);
  if (tensor.shape[0] != row.shape[0]) tensor = rows(tensor, place.row, place.row + row.shape[0]);
  return {std::move(tensor), place.column};
}

std::string StoredTensors::name(const ModelTensor& row, int index) const {
  return place_of(folder_, row, index).name;
}

Tensor StoredTensors::head() const {
  const ModelTensor& head = table_.at(kHead);
  return find(head.count > 0 ? head : table_.at(kEmbedding)).tensor;
}

}  // namespace foe
