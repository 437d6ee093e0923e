// Tells the tensors of one model folder from those of another.
#pragma once

#include <cstdint>
#include <string>

#include "base/thread_pool.h"
#include "weights/tensor_folder.h"

namespace foe {

// Returns a digest of the names, types and shapes of all tensors, of all bytes of tensors up to 256 KiB, and of a page
// of 4 KiB from each MiB of larger ones. It covers the tensors of all ranks, but reads less than a hundredth of a large
// model. Two models that were trained apart, or an incomplete copy, differ nearly everywhere, so the digest shows it.
// It does not show a small change within a large tensor.
std::uint64_t tensors_digest(ThreadPool& pool, const TensorFolder& folder);
// The same as text, as records of routes have it.
std::string model_identity(ThreadPool& pool, const TensorFolder& folder);

}  // namespace foe
