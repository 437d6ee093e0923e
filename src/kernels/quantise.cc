#include "kernels/quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/quantise.cc"
#include <hwy/foreach_target.h>

#include "kernels/int8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

// out[0..n) = the codes, rounded and clamped. n floats of which the scale is finite.
template <typename Code>
void encode(const float* x, int n, float scale, float largest_code, Code* out) {
  const hn::Rebind<Code, DF> d;
  const V16 inverse = set16(1 / scale), most = set16(largest_code), least = set16(-largest_code);
  const auto codes = [&](V16 v, Code* to) {
    const V16 multiple = mul(v, inverse);
    for (int j = 0; j < kVecs; ++j) {
      const VF clamped = hn::Min(hn::Max(multiple.v[j], least.v[j]), most.v[j]);
      hn::StoreU(hn::DemoteTo(d, hn::NearestInt(clamped)), d, to + j * kVecLanes);
    }
  };
  int i = 0;
  for (; i + kLanes16 <= n; i += kLanes16) codes(load16(x + i), out + i);
  if (i == n) return;
  HWY_ALIGN Code last[kLanes16];
  codes(load_first(x + i, n - i), last);
  std::copy_n(last, n - i, out + i);
}

// A hair below 1 / 32767 and 1 / 63.
constexpr float kInverse16 = 0x1.0002p-15f, kInverse7 = 0x1.04104p-6f;

void quantise_16(const float* x, int n, std::byte* to) {
  const int padded =
      static_cast<int>((quantised_row_bytes(WeightFormat::kInt8, n) - sizeof(float)) / sizeof(std::int16_t));
  auto* codes = reinterpret_cast<std::int16_t*>(to);
  const float scale = scale_of(x, n, kInverse16);
  std::memcpy(codes + padded, &scale, sizeof scale);
  const int used = std::isnan(scale) ? 0 : n;
  encode(x, used, scale, 32767, codes);
  std::fill(codes + used, codes + padded, std::int16_t{0});
}

void store_offsets(RowBlock& block) {
  constexpr int kLanes = 8;
  const hn::FixedTag<std::int16_t, kLanes> d;
  const hn::Rebind<std::int8_t, decltype(d)> codes;
  auto sum = hn::Zero(d);
  for (int k = 0; k < block_depth(WeightFormat::kInt4); k += kLanes)
    sum = hn::Add(sum, hn::PromoteTo(d, hn::LoadU(codes, block.codes + k)));
  std::int16_t sums[kLanes];  // of the codes k with k % 8 = 0, 1, ...
  hn::StoreU(sum, d, sums);
  for (int half = 0; half < 2; ++half)
    block.offsets[half] = static_cast<std::int16_t>(
        -kLevelOffset * (sums[2 * half] + sums[2 * half + 1] + sums[2 * half + 4] + sums[2 * half + 5]));
}

void quantise_7(const float* x, int n, std::byte* to) {
  constexpr int kBlock = block_depth(WeightFormat::kInt4);
  auto* block = reinterpret_cast<RowBlock*>(to);
  for (int k = 0; k < n; k += kBlock, ++block) {
    const int here = std::min(kBlock, n - k);
    block->scale = scale_of(x + k, here, kInverse7);
    const int used = std::isnan(block->scale) ? 0 : here;
    encode(x + k, used, block->scale, kMost7Bits, block->codes);
    std::fill(block->codes + used, block->codes + kBlock, std::int8_t{0});
    store_offsets(*block);
  }
}

void quantise_row(WeightFormat format, const float* x, int n, std::byte* to) {
  if (format == WeightFormat::kInt4)
    quantise_7(x, n, to);
  else
    quantise_16(x, n, to);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(quantise_row);

constexpr int kMostBlock = 64;
// Blocks of smaller weights are zero: the inverse of their scale may be infinite.
constexpr float kSmallest = 0x1p-100f;

struct Block {
  float scale = 0;
  std::array<std::int8_t, kMostBlock> codes{};
};

float rounded(float scale) {
  return to_float(to_bf16(scale));
}

void encode_int8(const float* w, int n, float scale, std::int8_t* codes) {
  const float inverse = 1 / scale;
  for (int k = 0; k < n; ++k)
    codes[k] = static_cast<std::int8_t>(std::clamp(std::nearbyint(w[k] * inverse), -127.0f, 127.0f));
}

// Half way between neighbouring levels.
constexpr std::array<float, 15> kInt4Thresholds = [] {
  std::array<float, 15> t{};
  for (int i = 0; i < 15; ++i) t[i] = 0.5f * (kInt4Levels[i] + kInt4Levels[i + 1]);
  return t;
}();

// Loops over all of a block, so that compilers vectorise them.
void encode_int4(const float (&w)[kMostBlock], float scale, std::int8_t* codes) {
  constexpr int kBlock = block_depth(WeightFormat::kInt4);
  const float inverse = 1 / scale;
  std::array<std::int32_t, kBlock> index{};
  std::array<float, kBlock> v;
  for (int k = 0; k < kBlock; ++k) v[k] = w[k] * inverse;
  for (const float threshold : kInt4Thresholds)
    for (int k = 0; k < kBlock; ++k) index[k] += v[k] > threshold ? 1 : 0;
  for (int k = 0; k < kBlock; ++k) codes[k] = static_cast<std::int8_t>(index[k]);
}

// Scales that put the largest weight near the last level on either side; each then moves to the best for its codes.
Block best_int4(const float (&w)[kMostBlock], float largest) {
  constexpr int kBlock = block_depth(WeightFormat::kInt4);
  constexpr float kTop[] = {19, 21, 23, 25, 27, 29, 30, 32};
  Block best;
  float least = std::numeric_limits<float>::infinity();
  for (const float top : kTop)
    for (const float sign : {1.0f, -1.0f}) {
      Block block;
      encode_int4(w, sign * largest / top, block.codes.data());
      std::array<float, kBlock> level;
      for (int k = 0; k < kBlock; ++k) level[k] = kInt4Levels[block.codes[k]];
      float products = 0, squares = 0, error = 0;
      for (int k = 0; k < kBlock; ++k) products += w[k] * level[k], squares += level[k] * level[k];
      block.scale = rounded(products / squares);
      for (int k = 0; k < kBlock; ++k) {
        const float e = w[k] - block.scale * level[k];
        error += e * e;
      }
      if (error < least) least = error, best = block;
    }
  encode_int4(w, best.scale, best.codes.data());
  return best;
}

}  // namespace

void quantise_block(WeightFormat format, const float* w, int n, BF16* scale, std::int8_t* codes) {
  FOE_CHECK(quantised(format) && 0 < n && n <= block_depth(format), "{} of {}", n, to_string(format));
  float largest = 0;
  bool finite = true;
  for (int k = 0; k < n; ++k) {
    largest = std::max(largest, std::abs(w[k]));
    finite &= std::isfinite(w[k]);
  }
  if (!finite || largest < kSmallest) {
    std::fill(codes, codes + n, std::int8_t{0});
    *scale = to_bf16(finite ? 0 : std::numeric_limits<float>::quiet_NaN());
    return;
  }
  if (format == WeightFormat::kInt8) {
    *scale = to_bf16(largest / 127);
    encode_int8(w, n, to_float(*scale), codes);
    return;
  }
  float padded[kMostBlock] = {};
  std::copy(w, w + n, padded);
  const Block best = best_int4(padded, largest);
  std::copy(best.codes.begin(), best.codes.begin() + n, codes);
  *scale = to_bf16(best.scale);
}

void quantise_rows(ThreadPool& pool, WeightFormat format, const float* x, std::size_t x_stride, int rows, int n,
                   const QuantisedRows& to) {
  FOE_CHECK(quantised(format) && to.stride >= quantised_row_bytes(format, n), "rows of {} for {} with a stride of {}",
            n, to_string(format), to.stride);
  const auto one = [&](std::size_t i) {
    HWY_DYNAMIC_DISPATCH(quantise_row)(format, x + i * x_stride, n, to.data + i * to.stride);
  };
  constexpr int kWorthThreads = 1 << 15;  // floats; handing out less takes longer than doing it
  if (static_cast<std::int64_t>(rows) * n < kWorthThreads)
    for (int i = 0; i < rows; ++i) one(i);
  else
    pool.parallel_for(rows, one);
}

}  // namespace foe
#endif
