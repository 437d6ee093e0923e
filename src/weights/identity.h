// Tells the tensors of one model folder from those of another.
#pragma once

#include <cstdint>
#include <functional>
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

// Returns the SHA-256 of the names, types, shapes and all bytes of all tensors, whichever files they are in. It reads
// the whole model, at some 1 GB/s with a thread of a processor that has instructions for it, and at 0.2 GB/s without.
// To be exact, it is the SHA-256 of hexadecimal digests, one after the other: for each tensor, in the order of names,
// that of "NAME TYPE SHAPE", and then those of its bytes in pieces of 16 MiB. `between` is called after each 64 pieces,
// and may throw.
std::string weights_sha256(
    ThreadPool& pool, const TensorFolder& folder, const std::function<void()>& between = [] {});

}  // namespace foe
