// What tells the tensors of one model folder from those of another.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "weights/checkpoint.h"

namespace foe {

// A digest of the names, types and shapes of all tensors, of all bytes of those up to 256 KiB, and of a page of 4 KiB
// from each MiB of larger ones: of a large model it reads less than a hundredth, also of what other ranks hold. Two
// models that were trained apart, or the halves of a copy that broke off, differ nearly everywhere; what it does not
// see is a small change within a large tensor.
std::uint64_t tensors_digest(ThreadPool& pool, const Checkpoint& checkpoint);

}  // namespace foe
