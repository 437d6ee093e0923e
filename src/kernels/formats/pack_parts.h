// Packs rows of q8_0, q4_0, q4_1, q4_k and q6_k as they stand in a file: numbers are moved, and none is rounded.
#pragma once

#include <cstddef>

#include "kernels/products/gemm.h"

namespace foe {

// Writes row `from` of a matrix, in the format keeps_parts(source), to row `r` of a panel of zeros.
void place_parts(const StoredMatrix& source, int from, int r, std::byte* panel);

}  // namespace foe
