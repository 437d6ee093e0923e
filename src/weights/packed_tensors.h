// Matrices that stand packed in a model folder, to be mapped as they are: tensor "NAME.panels.LAYOUT" of bytes, of
// shape [matrices, panels of 16 rows, bytes of a panel] (kernels/formats/weight_format.h), whose layout is f32, bf16,
// int8 or int4x128. Attention has a matrix for each group of a federated model, with its heads, and one otherwise;
// experts' gate and up are one matrix, as pack_gate_up() makes it.
#pragma once

#include <optional>
#include <string>

#include "core/model_config.h"
#include "core/share.h"
#include "kernels/products/gemm.h"
#include "weights/checkpoint.h"
#include "weights/weight_formats.h"

namespace foe {

inline constexpr const char* kHeadName = "lm_head";

// How a file has one part of a model.
struct StoredFormat {
  WeightFormat format = WeightFormat::kBF16;
  bool packed = false;
};
struct StoredFormats {
  StoredFormat attention, experts, head;
};
// Told by the first layer and expert. Throws Error where there are neither.
StoredFormats stored_formats(const Checkpoint& checkpoint, const ModelConfig& config);
// What loading makes of them. Throws Error where a part is packed and another format is asked for.
WeightFormats formats_in_memory(const Checkpoint& checkpoint, const StoredFormats& stored, const FormatChoice& choice);

// A tensor of two dimensions as what pack() takes.
StoredMatrix matrix(const Tensor& tensor);

int attention_matrices(const ModelConfig& config);
// What the names of an expert's packed matrices begin with.
std::string packed_expert_name(const ModelConfig& config, int layer, int expert);
std::string packed_name(const std::string& name, WeightFormat format);

// The format in which the folder has `name` packed; none where it has not.
std::optional<WeightFormat> packed_format(const Checkpoint& checkpoint, const std::string& name);

// Matrix `index` of `matrices` of [rows, depth], a view of the file. Throws Error where its shape is another.
PackedMatrix packed_tensor(const Checkpoint& checkpoint, const std::string& name, WeightFormat format, int matrices,
                           int index, int rows, int depth);

// Of `w`, these rows and columns. Throws Error where that would cut a panel or a block.
PackedMatrix packed_part(const PackedMatrix& w, const std::string& name, Range rows, Range columns);

}  // namespace foe
