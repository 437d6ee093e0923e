#include "kernels/formats/quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "base/check.h"
#include "kernels/formats/float_offset.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/formats/quantise.cc"
#include <hwy/foreach_target.h>

#include "kernels/formats/rotate-inl.h"
#include "kernels/products/int8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {
namespace {

// Computes the offsets of a block's parts from its codes.
template <typename Block>
void store_part_offsets(Block& block) {
  const VU8 ones = hn::Set(DU8(), 1);
  HWY_ALIGN std::int32_t parts[kCodeBlock / 4];
  for (int k = 0; k < kCodeBlock; k += 4 * kVecLanes) {
    const VI16 pairs = multiply_pairs(ones, hn::LoadU(DI8(), block.codes + k));
    // A 32-bit lane has two sums of pairs, and a part has four such lanes. Each lane gets the sum of all four.
    VI16 part = hn::Add(pairs, hn::BitCast(DI16(), hn::Shuffle1032(hn::BitCast(DI32(), pairs))));
    part = hn::Add(part, hn::BitCast(DI16(), hn::Shuffle2301(hn::BitCast(DI32(), part))));
    hn::StoreU(hn::BitCast(DI32(), hn::Neg(hn::ShiftLeft<5>(part))), DI32(), parts + k / 4);
  }
  static_assert(kLevelOffset == 1 << 5 && kInt4Part == 16);
  for (int part = 0; part < kCodeBlock / kInt4Part; ++part)
    std::memcpy(block.part_offsets[part], parts + part * 4, sizeof block.part_offsets[part]);
}

// Returns -kCodeOffset * the sum of the codes of parts 2 i and 2 i + 1.
template <typename Block>
std::int32_t wide_offset(const Block& block, int i) {
  static_assert(kCodeOffset == 4 * kLevelOffset && kRowPart == 2 * kInt4Part);
  const auto& first = block.part_offsets[2 * i];
  const auto& second = block.part_offsets[2 * i + 1];
  return 4 * (first[0] + first[1] + second[0] + second[1]);
}

struct Rounded {
  float scale;
  std::int32_t sum;  // of the codes
};

// Rounds n floats to codes. If the scale is NaN, the codes are zero.
Rounded round_to_codes(const float* x, int n, std::int8_t* codes) {
  const float scale = int8_scale(x, n);
  if (std::isnan(scale)) {
    std::fill_n(codes, n, std::int8_t{0});
    return {scale, 0};
  }
  const V16 inverse = set16(1 / scale);
  const hn::Rebind<std::int8_t, DF> d8;
  VI32 sum = hn::Zero(DI32());
  for (int k = 0; k < n; k += kLanes16) {
    const V16 multiple = mul(load16(x + k), inverse);
    for (int j = 0; j < kVecs; ++j) {
      const VI32 rounded = hn::NearestInt(multiple.v[j]);
      sum = hn::Add(sum, rounded);
      hn::StoreU(hn::DemoteTo(d8, rounded), d8, codes + k + j * kVecLanes);
    }
  }
  return {scale, hn::GetLane(hn::SumOfLanes(DI32(), sum))};
}

// Beside int4.
void quantise_row_block(const float* x, RowBlock& block) {
  block.scale = round_to_codes(x, kCodeBlock, block.codes).scale;
  store_part_offsets(block);
  block.offset = 0;
  for (int i = 0; i < kCodeBlock / kRowPart; ++i) block.offset += wide_offset(block, i);
}

void quantise_row_block(const float* x, RowBlockOfParts& block) {
  for (int i = 0; i < kCodeBlock / kRowPart; ++i)
    block.scales[i] = round_to_codes(x + i * kRowPart, kRowPart, block.codes + i * kRowPart).scale;
  store_part_offsets(block);
  for (int i = 0; i < kCodeBlock / kRowPart; ++i) block.wide_offsets[i] = kFloatOffset + wide_offset(block, i);
}

// Beside int8, whose products have no parts: reading the codes again, which were stored in pieces, would take as long
// as rounding them.
void quantise_rotated_block(const float* x, RowBlock& block) {
  HWY_ALIGN float rotated[kCodeBlock];
  rotate(x, rotated);
  const Rounded rounded = round_to_codes(rotated, kCodeBlock, block.codes);
  block.scale = rounded.scale;
  block.offset = -kCodeOffset * rounded.sum;
  std::memset(block.part_offsets, 0, sizeof block.part_offsets);
}

template <typename Block, void (*kQuantise)(const float*, Block&)>
void quantise_blocks(const float* x, int n, std::byte* to) {
  auto* block = reinterpret_cast<Block*>(to);
  int k = 0;
  for (; k + kCodeBlock <= n; k += kCodeBlock) kQuantise(x + k, *block++);
  if (k == n) return;
  float rest[kCodeBlock] = {};
  std::copy(x + k, x + n, rest);
  kQuantise(rest, *block);
}

void round_to_bf16(const float* x, int n, std::byte* to) {
  auto* half = reinterpret_cast<BF16*>(to);
  for (int k = 0; k < n; ++k) half[k] = to_bf16(x[k]);
  std::fill(half + n, half + padded_depth(WeightFormat::kBF16xBF16, n), BF16{});
}

void quantise_row(WeightFormat format, const float* x, int n, std::byte* to) {
  if (in_parts(format))
    quantise_blocks<RowBlockOfParts, quantise_row_block>(x, n, to);
  else if (format == WeightFormat::kInt8)
    quantise_blocks<RowBlock, quantise_rotated_block>(x, n, to);
  else if (format == WeightFormat::kInt4)
    quantise_blocks<RowBlock, quantise_row_block>(x, n, to);
  else
    round_to_bf16(x, n, to);
}

// The midpoints between neighbouring levels.
constexpr std::array<float, 15> kInt4Thresholds = [] {
  std::array<float, 15> t{};
  for (int i = 0; i < 15; ++i) t[i] = 0.5f * (kInt4Levels[i] + kInt4Levels[i + 1]);
  return t;
}();

// A part of a block in int4: its nearest levels for one scale, and their squared error, weighted by importance.
struct Int4Part {
  V16 levels;
  float error;
};
Int4Part nearest_levels(V16 w, V16 importance, float scale) {
  const V16 v = mul(w, set16(1 / scale));
  V16 levels = set16(kInt4Levels[0]);
  for (int i = 0; i < 15; ++i)
    for (int j = 0; j < kVecs; ++j)
      levels.v[j] = hn::IfThenElse(hn::Gt(v.v[j], hn::Set(DF(), kInt4Thresholds[i])), hn::Set(DF(), kInt4Levels[i + 1]),
                                   levels.v[j]);
  const V16 e = sub(w, mul(set16(scale), levels));
  return {levels, sum_lanes(mul(mul(importance, e), e))};
}

// What the largest weight becomes, among products, in the scales that are tried. Where errors are weighted, the largest
// weight may count little, so that more scales are.
constexpr float kTops[] = {104, 111, 118, 126, 135, 145};
constexpr float kWeightedTops[] = {90, 97, 104, 111, 118, 126, 135, 145, 160, 180, 210};
constexpr int kWeightedRounds = 2;

// A block in int4 while the best scale is searched for.
struct Int4Search {
  static constexpr int kParts = kCodeBlock / kInt4Part;
  static_assert(kInt4Part == kLanes16);
  HWY_ALIGN float w[kCodeBlock];
  HWY_ALIGN float importance[kCodeBlock];  // all 1: squared errors are not weighted
  float largest[kParts];
  // The results of encode(): the choice of a factor for each part, and the products of factors and levels.
  int choice[kParts];
  HWY_ALIGN float products[kCodeBlock];

  // Finds the nearest products for this scale. A factor is not tried if its levels end far below the largest weight of
  // a part or reach far beyond it, while other factors fit better.
  void encode(float scale) {
    constexpr float kLeast = 0.55f * kMostLevel, kMost = 1.35f * kMostLevel;
    for (int part = 0; part < kParts; ++part) {
      const V16 here = load16(w + part * kInt4Part), counts = load16(importance + part * kInt4Part);
      float least = std::numeric_limits<float>::infinity();
      for (int i = 0; i < 4; ++i) {
        const float factor = kInt4Factors[i], reach = largest[part] / std::abs(scale * factor);
        if ((reach > kMost && std::abs(factor) != kMostFactor) || (reach < kLeast && i != 0)) continue;
        const Int4Part coded = nearest_levels(here, counts, scale * factor);
        if (!(coded.error < least)) continue;
        least = coded.error;
        choice[part] = i;
        store16(mul(coded.levels, set16(factor)), products + part * kInt4Part);
      }
    }
  }
  // Returns the scale with the least weighted squared error for the products, and that error.
  float best_scale(float& error) const {
    V16 wp = zero16(), pp = zero16(), ee = zero16();
    for (int k = 0; k < kCodeBlock; k += kLanes16) {
      const V16 p = load16(products + k), weighted = mul(load16(importance + k), p);
      wp = fma(load16(w + k), weighted, wp);
      pp = fma(p, weighted, pp);
    }
    const float scale = sum_lanes(wp) / sum_lanes(pp);
    for (int k = 0; k < kCodeBlock; k += kLanes16) {
      const V16 e = sub(load16(w + k), mul(set16(scale), load16(products + k)));
      ee = fma(mul(load16(importance + k), e), e, ee);
    }
    error = sum_lanes(ee);
    return scale;
  }
};

// Tries several scales of both signs, each of which puts the largest weight near the last level of the largest factor.
// For each it finds the products and then the best scale for these; if errors are weighted, by `importance`, this
// several times. The best of all is rounded to bf16, and gets the nearest products for the rounded scale.
void quantise_int4(const float* weights, float largest, const float* importance, WeightBlock& block) {
  Int4Search search = {};  // in units of the largest weight, so that squares neither overflow nor vanish
  for (int k = 0; k < kCodeBlock; ++k) {
    search.w[k] = weights[k] / largest;
    search.importance[k] = importance ? importance[k] : 1;
    float& most = search.largest[k / kInt4Part];
    most = std::max(most, std::abs(search.w[k]));
  }
  float best = 1 / kTops[2], least = std::numeric_limits<float>::infinity();
  for (const float top : importance ? std::span<const float>(kWeightedTops) : std::span<const float>(kTops))
    for (const float sign : {1.0f, -1.0f}) {
      float error, scale = sign / top;
      for (int round = 0; round < (importance ? kWeightedRounds : 1); ++round) {
        search.encode(scale);
        scale = search.best_scale(error);
        if (!(scale * sign > 0)) break;  // where nearly all that counts is zero
        if (error < least) least = error, best = scale;
      }
    }
  // The limit keeps all weights finite, even if the scale is rounded up.
  constexpr float kMost = std::numeric_limits<float>::max() / (kMostFactor * kMostLevel + 1);
  block.scale = to_float(to_bf16(std::clamp(best * largest, -kMost, kMost)));
  search.encode(block.scale / largest);
  for (int k = 0; k < kCodeBlock; ++k) {
    const int choice = search.choice[k / kInt4Part];
    const auto level = static_cast<std::int8_t>(search.products[k] / kInt4Factors[choice]);
    const auto index =
        std::lower_bound(std::begin(kInt4Levels), std::end(kInt4Levels), level) - std::begin(kInt4Levels);
    block.codes[k] = static_cast<std::int8_t>(16 * choice + index);
  }
}

// Rotates kCodeBlock weights and divides them by kCodeBlock, so that products with rotated activations stay what they
// were. Dividing first keeps sums finite.
void rotate_weights(float* w) {
  for (int k = 0; k < kCodeBlock; ++k) w[k] *= 1.0f / kCodeBlock;
  rotate(w, w);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace foe {
namespace {

HWY_EXPORT(quantise_row);
HWY_EXPORT(quantise_int4);
HWY_EXPORT(rotate_weights);

// Blocks whose weights are all smaller become zero, because the inverse of their scale may be infinite.
constexpr float kSmallest = 0x1p-100f;

void encode_int8(const float* w, WeightBlock& block) {
  const float inverse = 1 / block.scale;
  for (int k = 0; k < kCodeBlock; ++k)
    block.codes[k] = static_cast<std::int8_t>(std::clamp(std::nearbyint(w[k] * inverse), -127.0f, 127.0f));
}

// Writes the importance of a block relative to its largest, with zeros behind it; false if all are zero. The floor is
// for blocks in which all that counts is tiny: their other weights should not become zero for it.
bool relative_importance(const float* importance, int n, float* out) {
  constexpr float kLeast = 1e-6f;
  const float most = *std::max_element(importance, importance + n);
  FOE_CHECK(most >= 0 && std::isfinite(most) && *std::min_element(importance, importance + n) >= 0, "importance {}",
            most);
  if (most == 0) return false;
  for (int k = 0; k < kCodeBlock; ++k) out[k] = k < n ? std::max(importance[k] / most, kLeast) : 0;
  return true;
}

}  // namespace

WeightBlock quantise_block(WeightFormat format, const float* weights, int n, const float* importance) {
  FOE_CHECK(quantised(format) && !in_parts(format) && 0 < n && n <= kCodeBlock, "{} of {}", n, to_string(format));
  float w[kCodeBlock] = {};
  std::copy_n(weights, n, w);
  if (format == WeightFormat::kInt8) HWY_DYNAMIC_DISPATCH(rotate_weights)(w);
  float largest = 0;
  bool finite = true;
  for (int k = 0; k < kCodeBlock; ++k) {
    largest = std::max(largest, std::abs(w[k]));
    finite &= std::isfinite(w[k]);
  }
  if (!finite) return {.scale = std::numeric_limits<float>::quiet_NaN()};
  if (largest < kSmallest) return {};
  WeightBlock block;
  if (format == WeightFormat::kInt4) {
    float counts[kCodeBlock];
    const bool weighted = importance && relative_importance(importance, n, counts);
    HWY_DYNAMIC_DISPATCH(quantise_int4)(w, largest, weighted ? counts : nullptr, block);
    return block;
  }
  block.scale = largest * 0x1.020406p-7f;  // a hair less than 1 / 127, so that no weight overflows
  encode_int8(w, block);
  return block;
}

void quantise_rows(ThreadPool& pool, WeightFormat format, const float* x, std::size_t x_stride, int rows, int n,
                   const QuantisedRows& to) {
  FOE_CHECK(rounds_rows(format) && to.stride >= quantised_row_bytes(format, n), "rows of {} for {} with a stride of {}",
            n, to_string(format), to.stride);
  const auto one = [&](std::size_t i) {
    HWY_DYNAMIC_DISPATCH(quantise_row)(format, x + i * x_stride, n, to.data + i * to.stride);
  };
  constexpr int kWorthThreads = 1 << 15;  // floats; handing out fewer takes longer than rounding them
  if (static_cast<std::int64_t>(rows) * n < kWorthThreads)
    for (int i = 0; i < rows; ++i) one(i);
  else
    pool.parallel_for(rows, one);
}

}  // namespace foe
#endif
