// Weights that are numbers: one NaN, or an infinity, makes every logit one, and every answer nonsense.
#pragma once

#include "base/thread_pool.h"
#include "kernels/products/gemm.h"
#include "weights/tensor_file.h"

namespace foe {

// The part of a tensor's matrix that is to become `format`, as a matrix. Throws Error naming the tensor, the first
// element in it that is not finite or that bf16 does not hold, and where it stands.
StoredMatrix finite_part(ThreadPool& pool, const Tensor& tensor, int row, int rows, int column, int columns,
                         WeightFormat format);

// The same for a whole tensor of any shape, as it is.
void require_finite(ThreadPool& pool, const Tensor& tensor);

}  // namespace foe
