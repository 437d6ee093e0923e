#include "kernels/peak.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/huge_pages.h"
#include "kernels/cpu.h"
#include "kernels/products/amx.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/peak.cc"
#include <hwy/foreach_target.h>

#include "kernels/products/quantised_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

// The number of independent chains: more than the latency (4 or 5 cycles) times two pipes, and fewer than there are
// registers.
constexpr int kChains = 12;
constexpr int kReadChains = 4;

// Runs chains of multiply-adds. Returns a value that depends on every operation, and sets `flops` to their number.
float fma_chains_kernel(int iterations, double& flops) {
  const DF d;
  const VF a = hn::Set(d, 0.999f), b = hn::Set(d, 0.001f);
  VF x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = hn::Set(d, static_cast<float>(i));
  for (int n = 0; n < iterations; ++n)
    for (int i = 0; i < kChains; ++i) x[i] = hn::MulAdd(x[i], a, b);
  for (int i = 1; i < kChains; ++i) x[0] = hn::Add(x[0], x[i]);
  flops = 2.0 * kVecLanes * kChains * iterations;
  return hn::GetLane(hn::SumOfLanes(d, x[0]));
}

// Runs chains of 8-bit products with 32-bit sums. The compiler must not know that the operands are all the same.
template <bool kDots>
float dot_chains(int iterations, double& operations) {
  const DI32 d32;
  const VI8 codes = hn::Set(DI8(), 3);
  const VI16 ones = hn::Set(DI16(), 1);
  VU8 levels = hn::Set(DU8(), 5);
  VI32 x[kChains], odd = hn::Zero(d32);
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) x[i] = hn::Set(d32, i);
  for (int n = 0; n < iterations; ++n)
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      keep_in_place(levels);
      if (kDots)
        dot_quads(levels, hn::BitCast(d32, codes), x[i]);
      else
        x[i] = hn::ReorderWidenMulAccumulate(d32, multiply_pairs(levels, codes), ones, x[i], odd);
      keep_in_place(x[i]);
    }
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) x[0] = hn::Add(x[0], x[i]);
  operations = 2.0 * 4 * kVecLanes * kChains * iterations;
  return static_cast<float>(hn::GetLane(hn::SumOfLanes(d32, hn::Add(x[0], odd))));
}

float dot_chains_kernel(int iterations, double& operations) {
  return kMayDot && dot_products() ? dot_chains<kMayDot>(iterations, operations)
                                   : dot_chains<false>(iterations, operations);
}

// Returns the sum of n floats. n must be a multiple of 16 * kReadChains.
float read_kernel(const float* x, std::size_t n) {
  V16 sums[kReadChains];
  for (V16& sum : sums) sum = zero16();
  for (std::size_t i = 0; i < n; i += kReadChains * kLanes16)
    for (int c = 0; c < kReadChains; ++c) sums[c] = add(sums[c], load16(x + i + c * kLanes16));
  for (int c = 1; c < kReadChains; ++c) sums[0] = add(sums[0], sums[c]);
  return sum_lanes(sums[0]);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(fma_chains_kernel);
HWY_EXPORT(dot_chains_kernel);
HWY_EXPORT(read_kernel);

// Returns the operations per second of chains(iterations, operations) on all threads: the best of the rounds.
template <typename Chains>
double measure_chains(ThreadPool& pool, int rounds, Chains&& chains) {
  constexpr double kRoundSeconds = 0.02;
  struct Result {
    double flops = 0, seconds = 0;
    float sink = 0;  // keeps the chains from being optimised away
  };
  std::vector<Result> results(pool.threads());
  double best = 0;
  int iterations = 1 << 14;
  for (int round = 0; round < rounds;) {
    pool.parallel_for(results.size(), [&](std::size_t i) {
      const double start = thread_cpu_seconds();
      results[i].sink = chains(iterations, results[i].flops);
      results[i].seconds = thread_cpu_seconds() - start;
    });
    double rate = 0;
    for (const Result& result : results) rate += result.flops / result.seconds;
    if (results[0].seconds < kRoundSeconds / 2 &&
        iterations < (1 << 29)) {  // still looking for the number of iterations
      iterations *= 2;
      continue;
    }
    best = std::max(best, rate);
    ++round;
  }
  volatile float keep = results[0].sink;
  static_cast<void>(keep);
  return best;
}

}  // namespace

double measure_fma_peak(ThreadPool& pool, int rounds) {
  return measure_chains(pool, rounds, [](int iterations, double& operations) {
    return HWY_DYNAMIC_DISPATCH(fma_chains_kernel)(iterations, operations);
  });
}

double measure_dot_peak(ThreadPool& pool, int rounds) {
  return measure_chains(pool, rounds, [](int iterations, double& operations) {
    return HWY_DYNAMIC_DISPATCH(dot_chains_kernel)(iterations, operations);
  });
}

TilePeaks measure_tile_peaks([[maybe_unused]] ThreadPool& pool, [[maybe_unused]] int rounds) {
  TilePeaks peaks;
#if defined(__x86_64__)
  if (!tiles()) return peaks;
  // Four registers have sums, enough to hide the latency of a product, and the other four have operands.
  const auto chains = [](auto&& multiply, int depth) {
    return [multiply, depth](int iterations, double& operations) {
      alignas(64) std::byte bytes[amx::kTileBytes];
      for (int i = 0; i < amx::kTileBytes; ++i) bytes[i] = static_cast<std::byte>(i % 2 == 0 ? 41 * i : 0x3f);
      const amx::Tiles registers;
      amx::load<4>(bytes), amx::load<5>(bytes), amx::load<6>(bytes), amx::load<7>(bytes);
      for (int n = 0; n < iterations; ++n) multiply();
      operations = 2.0 * 4 * amx::kTileRows * kPanel * depth * iterations;
      amx::store<0>(bytes);
      return static_cast<float>(std::to_integer<int>(bytes[0]));
    };
  };
  peaks.dots_per_s = measure_chains(pool, rounds,
                                    chains(
                                        [] {
                                          amx::multiply_bytes<0, 4, 6>();
                                          amx::multiply_bytes<1, 4, 7>();
                                          amx::multiply_bytes<2, 5, 6>();
                                          amx::multiply_bytes<3, 5, 7>();
                                        },
                                        amx::kTileRowBytes));
  peaks.flops_per_s = measure_chains(pool, rounds,
                                     chains(
                                         [] {
                                           amx::multiply_bf16<0, 4, 6>();
                                           amx::multiply_bf16<1, 4, 7>();
                                           amx::multiply_bf16<2, 5, 6>();
                                           amx::multiply_bf16<3, 5, 7>();
                                         },
                                         amx::kTileRowBytes / 2));
#endif
  return peaks;
}

double measure_read_bandwidth(ThreadPool& pool, int rounds) {
  constexpr std::size_t kPart = std::size_t{1} << 18, kParts = 256;  // floats that one thread reads at a time: 1 MB
  AlignedBuffer<float> buffer = large_buffer<float>(kPart * kParts);
  // The buffer is written first: otherwise all pages would be the same page of zeros.
  pool.parallel_for(kParts, [&](std::size_t i) { std::fill_n(buffer.data() + i * kPart, kPart, 1.0f); });
  std::vector<float> sums(kParts);
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto start = Clock::now();
    pool.parallel_for(
        kParts, [&](std::size_t i) { sums[i] = HWY_DYNAMIC_DISPATCH(read_kernel)(buffer.data() + i * kPart, kPart); });
    best = std::max(best, static_cast<double>(buffer.size() * sizeof(float)) / seconds_since(start));
  }
  for (const float sum : sums)  // also keeps the reads from being optimised away
    FOE_CHECK(sum == static_cast<float>(kPart), "{} ones add up to {}", kPart, sum);
  return best;
}

MachineLimits measure_limits(ThreadPool& pool) {
  return {.read_bytes_per_s = measure_read_bandwidth(pool),
          .flops_per_s = measure_fma_peak(pool),
          .dots_per_s = measure_dot_peak(pool),
          .tiles = measure_tile_peaks(pool)};
}

}  // namespace foe
#endif
