// Random inputs and rounding bounds for tests of f32 kernels against double references (kernels/ref.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "base/thread_pool.h"
#include "core/dtype.h"
#include "kernels/products/gemm.h"
#include "kernels/ref.h"

namespace foe {

inline constexpr double kUnitRoundoff = 0x1.0p-24;  // half a unit in the last place of f32, relative

// Returns the relative error that n roundings can add up to (Higham, Accuracy and Stability of Numerical Algorithms,
// section 3.1). A sum of n products, fused or not, differs from the exact one by at most gamma(n) * sum |a||b|.
inline double gamma(double n) {
  return n * kUnitRoundoff / (1 - n * kUnitRoundoff);
}

inline std::vector<float> random_values(std::size_t count, std::uint64_t seed) {
  std::vector<float> x(count);
  for (std::size_t i = 0; i < count; ++i) x[i] = static_cast<float>(random_normal(seed, i));
  return x;
}

inline ref::Values to_double(const std::vector<float>& x) {
  return {x.begin(), x.end()};
}

inline ref::Values absolute(ref::Values x) {
  for (double& value : x) value = std::abs(value);
  return x;
}

inline ThreadPool& one_thread() {
  static ThreadPool pool(1);
  return pool;
}

// A StoredMatrix that owns its bytes, like a tensor in a model folder.
struct Weights {
  StoredMatrix matrix;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // the values of the bytes

  Weights(const std::vector<float>& x, int rows, int depth, DType type) : bytes(x.size() * size_of(type)) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const BF16 half = to_bf16(x[i]);
      values.push_back(type == DType::kF32 ? x[i] : to_float(half));
      if (type == DType::kF32)
        reinterpret_cast<float*>(bytes.data())[i] = x[i];
      else
        reinterpret_cast<BF16*>(bytes.data())[i] = half;
    }
    matrix = {type, bytes.data(), depth * size_of(type), rows, depth};
  }
  Weights(const Weights&) = delete;

  PackedMatrix packed() const { return pack(one_thread(), {&matrix, 1}, format_of(matrix.type)); }
};

// Returns pools of 1, 2 and 3 threads. Results must not depend on which one is used.
inline std::vector<std::unique_ptr<ThreadPool>> thread_pools() {
  std::vector<std::unique_ptr<ThreadPool>> pools;
  for (int threads = 1; threads <= 3; ++threads) pools.push_back(std::make_unique<ThreadPool>(threads));
  return pools;
}

}  // namespace foe
