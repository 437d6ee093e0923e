// Which matrices of a GGUF file keep the format that they have there: those of the types q8_0, q4_0, q4_1, q4_k and
// q6_k, unless another format is asked for. Their numbers are moved to panels, and none is rounded. A matrix cannot
// keep its format if a block of a sum (core/sum_blocks.h) begins inside one of its blocks, or if gate and up, which are
// one matrix, are of two types. This depends on the model, but not on the number of ranks.
#pragma once

#include "core/model_config.h"
#include "weights/stored_tensors.h"
#include "weights/weight_formats.h"

namespace foe {

// Sets the kept formats of parts for which `choice` asks for none.
void keep_formats(const StoredTensors& stored, const ModelConfig& config, const FormatChoice& choice,
                  WeightFormats& formats);

// Returns the format in memory of one of the matrices of a row of attention, of experts or of the head.
WeightFormat format_in_memory(const StoredTensors& stored, const ModelConfig& config, const WeightFormats& formats,
                              const ModelTensor& row, int index = 0);

// Returns the bytes in memory of what a share has of such matrices and of routers, with the zeros that fill up blocks
// along the depth, but without those that fill up the last panels.
double matrix_bytes(const StoredTensors& stored, const ModelConfig& config, const WeightFormats& formats,
                    const Share& share);

// Returns the tensor of such a matrix.
StoredTensor stored_matrix(const StoredTensors& stored, const ModelTensor& row, int index = 0);

}  // namespace foe
