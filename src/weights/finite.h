// Checks that weights are finite: one NaN or infinity would make every logit NaN.
#pragma once

#include "base/thread_pool.h"
#include "kernels/products/gemm.h"
#include "weights/tensor_file.h"

namespace foe {

// Returns a part of a tensor's matrix, which will be converted to `format`. Throws Error, naming the tensor and the
// first such element, if an element is not finite, or if it would become infinite in `format`.
StoredMatrix finite_part(ThreadPool& pool, const Tensor& tensor, int row, int rows, int column, int columns,
                         WeightFormat format);

// Throws Error in the same way if an element of a tensor of any shape is not finite.
void require_finite(ThreadPool& pool, const Tensor& tensor);

}  // namespace foe
