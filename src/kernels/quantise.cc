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

using DI32 = hn::RebindToSigned<DF>;
using VI32 = hn::Vec<DI32>;

// From the sums of the codes whose k have the same remainder.
void store_offsets(VI32 sums, RowBlock<WeightFormat::kInt8>& block) {
  block.offset = -kCodeOffset * hn::GetLane(hn::SumOfLanes(DI32(), sums));
}
void store_offsets(VI32 sums, RowBlock<WeightFormat::kInt4>& block) {
  const auto low = hn::Eq(hn::And(hn::Iota(DI32(), 0), hn::Set(DI32(), 2)), hn::Zero(DI32()));  // k % 4 < 2
  const std::int32_t low_sum = hn::GetLane(hn::SumOfLanes(DI32(), hn::IfThenElseZero(low, sums)));
  const std::int32_t high_sum = hn::GetLane(hn::SumOfLanes(DI32(), hn::IfThenZeroElse(low, sums)));
  block.offsets[0] = static_cast<std::int16_t>(-kLevelOffset * low_sum);
  block.offsets[1] = static_cast<std::int16_t>(-kLevelOffset * high_sum);
  block.offset = -kLevelOffset * (low_sum + high_sum);
}

template <WeightFormat kFormat>
void quantise_row_block(const float* x, RowBlock<kFormat>& block) {
  constexpr int kBlock = scale_depth(kFormat);
  // A hair below 1 / 127 and 1 / 63: multiples of the scale round to at most that many.
  constexpr float kInverse = kFormat == WeightFormat::kInt8 ? 0x1.020406p-7f : 0x1.04104p-6f;
  static_assert(static_cast<int>(1 / kInverse) == most_code(kFormat));
  const float scale = scale_of(x, kBlock, kInverse);
  if (std::isnan(scale)) {
    block = {};
    block.scale = scale;
    return;
  }
  block.scale = scale;
  const V16 inverse = set16(1 / scale);
  const hn::Rebind<std::int8_t, DF> d8;
  VI32 sums = hn::Zero(DI32());
  for (int k = 0; k < kBlock; k += kLanes16) {
    const V16 multiple = mul(load16(x + k), inverse);
    for (int j = 0; j < kVecs; ++j) {
      const VI32 codes = hn::NearestInt(multiple.v[j]);
      sums = hn::Add(sums, codes);
      hn::StoreU(hn::DemoteTo(d8, codes), d8, block.codes + k + j * kVecLanes);
    }
  }
  store_offsets(sums, block);
}

template <WeightFormat kFormat>
void quantise_blocks(const float* x, int n, std::byte* to) {
  constexpr int kBlock = scale_depth(kFormat);
  auto* block = reinterpret_cast<RowBlock<kFormat>*>(to);
  int k = 0;
  for (; k + kBlock <= n; k += kBlock) quantise_row_block(x + k, *block++);
  for (; k < padded_depth(kFormat, n); k += kBlock) {
    float rest[kBlock] = {};
    std::copy(x + std::min(k, n), x + n, rest);
    quantise_row_block(rest, *block++);
  }
}

void quantise_row(WeightFormat format, const float* x, int n, std::byte* to) {
  if (format == WeightFormat::kInt4)
    quantise_blocks<WeightFormat::kInt4>(x, n, to);
  else
    quantise_blocks<WeightFormat::kInt8>(x, n, to);
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
  constexpr int kBlock = scale_depth(WeightFormat::kInt4);
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
  constexpr int kBlock = scale_depth(WeightFormat::kInt4);
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
  FOE_CHECK(quantised(format) && 0 < n && n <= scale_depth(format), "{} of {}", n, to_string(format));
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
