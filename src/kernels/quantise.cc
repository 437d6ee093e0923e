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

// From the codes of a block.
void store_offsets(RowBlock& block) {
  const VU8 ones = hn::Set(DU8(), 1);
  VI16 sums = hn::Zero(DI16());
  HWY_ALIGN std::int32_t parts[kCodeBlock / 4];
  for (int k = 0; k < kCodeBlock; k += 4 * kVecLanes) {
    const VI16 pairs = multiply_pairs(ones, hn::LoadU(DI8(), block.codes + k));
    sums = hn::Add(sums, pairs);
    // Two pairs are one lane of 32 bits, and four of those a part: each gets the sum of all.
    VI16 part = hn::Add(pairs, hn::BitCast(DI16(), hn::Shuffle1032(hn::BitCast(DI32(), pairs))));
    part = hn::Add(part, hn::BitCast(DI16(), hn::Shuffle2301(hn::BitCast(DI32(), part))));
    hn::StoreU(hn::BitCast(DI32(), hn::Neg(hn::ShiftLeft<5>(part))), DI32(), parts + k / 4);
  }
  static_assert(kLevelOffset == 1 << 5 && kInt4Part == 16);
  for (int part = 0; part < kCodeBlock / kInt4Part; ++part)
    std::memcpy(block.part_offsets[part], parts + part * 4, sizeof block.part_offsets[part]);
  VI32 odd = hn::Zero(DI32());
  const VI32 even = hn::ReorderWidenMulAccumulate(DI32(), sums, hn::Set(DI16(), 1), hn::Zero(DI32()), odd);
  block.offset = -kCodeOffset * hn::GetLane(hn::SumOfLanes(DI32(), hn::Add(even, odd)));
}

void quantise_row_block(const float* x, RowBlock& block) {
  block.scale = int8_scale(x, kCodeBlock);
  if (std::isnan(block.scale)) {
    const float scale = block.scale;
    block = {};
    block.scale = scale;
    return;
  }
  const V16 inverse = set16(1 / block.scale);
  const hn::Rebind<std::int8_t, DF> d8;
  for (int k = 0; k < kCodeBlock; k += kLanes16) {
    const V16 multiple = mul(load16(x + k), inverse);
    for (int j = 0; j < kVecs; ++j)
      hn::StoreU(hn::DemoteTo(d8, hn::NearestInt(multiple.v[j])), d8, block.codes + k + j * kVecLanes);
  }
  store_offsets(block);
}

void quantise_blocks(const float* x, int n, std::byte* to) {
  auto* block = reinterpret_cast<RowBlock*>(to);
  int k = 0;
  for (; k + kCodeBlock <= n; k += kCodeBlock) quantise_row_block(x + k, *block++);
  if (k == n) return;
  float rest[kCodeBlock] = {};
  std::copy(x + k, x + n, rest);
  quantise_row_block(rest, *block);
}

void round_to_bf16(const float* x, int n, std::byte* to) {
  auto* half = reinterpret_cast<BF16*>(to);
  for (int k = 0; k < n; ++k) half[k] = to_bf16(x[k]);
  std::fill(half + n, half + padded_depth(WeightFormat::kBF16xBF16, n), BF16{});
}

void quantise_row(WeightFormat format, const float* x, int n, std::byte* to) {
  if (quantised(format))
    quantise_blocks(x, n, to);
  else
    round_to_bf16(x, n, to);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(quantise_row);

// Blocks of smaller weights are zero: the inverse of their scale may be infinite.
constexpr float kSmallest = 0x1p-100f;

void encode_int8(const float* w, int n, WeightBlock& block) {
  const float inverse = 1 / block.scale;
  for (int k = 0; k < n; ++k)
    block.codes[k] = static_cast<std::int8_t>(std::clamp(std::nearbyint(w[k] * inverse), -127.0f, 127.0f));
}

// Half way between neighbouring levels.
constexpr std::array<float, 15> kInt4Thresholds = [] {
  std::array<float, 15> t{};
  for (int i = 0; i < 15; ++i) t[i] = 0.5f * (kInt4Levels[i] + kInt4Levels[i + 1]);
  return t;
}();

// The nearest levels for the weights of a part at one scale and factor, and their squared error. Loops over all of the
// part, so that compilers vectorise them.
struct Int4Part {
  std::array<std::int32_t, kInt4Part> index{};
  float error = 0;

  Int4Part(const float* w, float scale) {
    const float inverse = 1 / scale;
    std::array<float, kInt4Part> v, level;
    for (int k = 0; k < kInt4Part; ++k) v[k] = w[k] * inverse;
    for (int k = 0; k < kInt4Part; ++k) level[k] = kInt4Levels[0];
    for (int i = 0; i < 15; ++i)
      for (int k = 0; k < kInt4Part; ++k) {
        const bool above = v[k] > kInt4Thresholds[i];
        index[k] += above ? 1 : 0;
        level[k] = above ? kInt4Levels[i + 1] : level[k];
      }
    for (int k = 0; k < kInt4Part; ++k) {
      const float e = w[k] - scale * level[k];
      error += e * e;
    }
  }
};

// The codes with the least error at this scale, and that error. A factor whose levels end far before the largest weight
// of a part, or reach far beyond it, is not tried if others are nearer.
float encode_int4(const std::array<float, kCodeBlock>& w, const std::array<float, kCodeBlock / kInt4Part>& largest,
                  WeightBlock& block) {
  constexpr float kLeast = 0.55f * kMostLevel, kMost = 1.35f * kMostLevel;
  float error = 0;
  for (std::size_t part = 0; part < largest.size(); ++part) {
    const float* here = w.data() + part * kInt4Part;
    float least = std::numeric_limits<float>::infinity();
    for (int i = 0; i < 4; ++i) {
      const float scale = block.scale * kInt4Factors[i], reach = largest[part] / std::abs(scale);
      const bool first = i == 0, last = std::abs(kInt4Factors[i]) == kMostFactor;
      if ((reach > kMost && !last) || (reach < kLeast && !first)) continue;
      const Int4Part coded(here, scale);
      if (!(coded.error < least)) continue;
      least = coded.error;
      for (int k = 0; k < kInt4Part; ++k)
        block.codes[part * kInt4Part + k] = static_cast<std::int8_t>(16 * i + coded.index[k]);
    }
    error += least;
  }
  return error;
}

// Tries scales that put the largest weight near the last level of the largest factor, on either side; each moves to
// the best for its codes, and what is best then gets the nearest codes at its scale as it is stored.
WeightBlock best_int4(const float* weights, int n, float largest) {
  constexpr float kTop[] = {104, 111, 118, 126, 135, 145};
  std::array<float, kCodeBlock> w{};  // of the largest, so that squares neither overflow nor vanish
  for (int k = 0; k < n; ++k) w[k] = weights[k] / largest;
  std::array<float, kCodeBlock / kInt4Part> largest_of_part{};
  for (int k = 0; k < kCodeBlock; ++k)
    largest_of_part[k / kInt4Part] = std::max(largest_of_part[k / kInt4Part], std::abs(w[k]));
  float best = 0, least = std::numeric_limits<float>::infinity();
  for (const float top : kTop)
    for (const float sign : {1.0f, -1.0f}) {
      WeightBlock block{.scale = sign / top};
      encode_int4(w, largest_of_part, block);
      float products = 0, squares = 0;
      for (int k = 0; k < kCodeBlock; ++k) {
        const float product = kInt4Products[block.codes[k]];
        products += w[k] * product, squares += product * product;
      }
      const float scale = products / squares;
      float error = 0;
      for (int k = 0; k < kCodeBlock; ++k) {
        const float e = w[k] - scale * kInt4Products[block.codes[k]];
        error += e * e;
      }
      if (error < least) least = error, best = scale;
    }
  // All that can be read is finite, also of a scale that is rounded up.
  constexpr float kMost = std::numeric_limits<float>::max() / (kMostFactor * kMostLevel + 1);
  WeightBlock block{.scale = to_float(to_bf16(std::clamp(best * largest, -kMost, kMost)))};
  const float stored = block.scale;
  block.scale /= largest;
  encode_int4(w, largest_of_part, block);
  block.scale = stored;
  return block;
}

}  // namespace

WeightBlock quantise_block(WeightFormat format, const float* w, int n) {
  FOE_CHECK(quantised(format) && 0 < n && n <= kCodeBlock, "{} of {}", n, to_string(format));
  float largest = 0;
  bool finite = true;
  for (int k = 0; k < n; ++k) {
    largest = std::max(largest, std::abs(w[k]));
    finite &= std::isfinite(w[k]);
  }
  if (!finite) return {.scale = std::numeric_limits<float>::quiet_NaN()};
  if (largest < kSmallest) return {};
  if (format == WeightFormat::kInt4) return best_int4(w, n, largest);
  WeightBlock block{.scale = largest * 0x1.020406p-7f};  // a hair less than 1 / 127, so that no weight overflows
  encode_int8(w, n, block);
  return block;
}

void quantise_rows(ThreadPool& pool, WeightFormat format, const float* x, std::size_t x_stride, int rows, int n,
                   const QuantisedRows& to) {
  FOE_CHECK(rounds_rows(format) && to.stride >= quantised_row_bytes(format, n), "rows of {} for {} with a stride of {}",
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
