// Matrices that a model folder has packed already, which are mapped without copying. Such a matrix is a tensor
// "NAME.panels.LAYOUT" of bytes, of shape [matrices, panels of 16 rows, bytes of a panel]
// (kernels/formats/weight_format.h). LAYOUT is f32, bf16, rotated_int8x128 or int4x128. For attention, a federated
// model has a matrix for each group, with the group's heads, and any other model has one. Gate and up of an expert are
// one matrix, as pack_gate_up() makes it.
#pragma once

#include <optional>
#include <string>

#include "core/model_config.h"
#include "core/share.h"
#include "kernels/products/gemm.h"
#include "weights/stored_tensors.h"
#include "weights/weight_formats.h"

namespace foe {

// How a folder stores one part of a model.
struct StoredFormat {
  WeightFormat format = WeightFormat::kBF16;
  bool packed = false;
};
struct StoredFormats {
  StoredFormat attention, experts, head;
};
// Returns the formats of the folder, as its first layer and expert have them. Throws Error if these tensors are
// missing.
StoredFormats stored_formats(const StoredTensors& stored, const ModelConfig& config);
// Returns the formats that the parts have once they are loaded. Throws Error if a part is packed and `choice` asks for
// another format.
WeightFormats formats_in_memory(const TensorFolder& folder, const StoredFormats& stored, const FormatChoice& choice);

// Throws Error unless the folder has every tensor of the model, and no other: one that nobody reads would make the
// answers wrong. Shapes are checked of what is not packed.
void check_tensors(const StoredTensors& stored, const StoredFormats& formats);

// The same for a folder whose weights are wanted one by one: Error if a part is packed, if a tensor is in blocks of a
// quantised type, or if a model that ties its head to the embedding has one all the same.
void check_plain(const StoredTensors& stored, const ModelConfig& config);

// Returns a tensor with two dimensions as the StoredMatrix that pack() takes.
StoredMatrix matrix(const Tensor& tensor);

// Returns how many matrices attention's packed tensors have.
int attention_matrices(const ModelConfig& config);
// Returns the NAME under which one of a row's tensors is packed.
std::string packed_stem(const ModelTensor& row, int index = 0);
// Returns "NAME.panels.LAYOUT".
std::string packed_name(const std::string& name, WeightFormat format);

// Returns the format in which the folder has `name` packed; none if it is not packed.
std::optional<WeightFormat> packed_format(const TensorFolder& folder, const std::string& name);

// Returns matrix `index` of `matrices`, each [rows, depth], as a view of the file. Throws Error if the tensor has
// another shape.
PackedMatrix packed_tensor(const TensorFolder& folder, const std::string& name, WeightFormat format, int matrices,
                           int index, int rows, int depth);

// Returns a view of some rows and columns of `w`. Throws Error if that would cut a panel or a block of the format.
PackedMatrix packed_part(const PackedMatrix& w, const std::string& name, Range rows, Range columns);

}  // namespace foe
