// The register tiles of vectors for products of bf16 with bf16, in the order of AMX's tile registers
// (kernels/products/bf16_dot-inl.h).

#if defined(FOE_KERNELS_PAIRS_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_PAIRS_TILE_INL_H_
#undef FOE_KERNELS_PAIRS_TILE_INL_H_
#else
#define FOE_KERNELS_PAIRS_TILE_INL_H_
#endif

#include <cstddef>

#include "kernels/formats/weight_format.h"
#include "kernels/products/bf16_dot-inl.h"
#include "kernels/products/gemm_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// y[m * y_stride + 16 p + (0..15)] = row x[m] times the p-th panel from w on. The vectors that make up 16 outputs are
// processed one after the other in each block, so that more rows have their chains in registers.
template <int kRows, int kPanels>
HWY_NOINLINE void multiply_pairs_of_bf16(const std::byte* const (&x)[kRows], const std::byte* w,
                                         std::size_t panel_stride, int depth, float* y, std::size_t y_stride) {
  constexpr WeightFormat kFormat = WeightFormat::kBF16xBF16;
  static_assert(kPairBlock == kDotDepth);
  V16 acc[kRows][kPanels];
  clear_tile(acc);
  for (int k = 0; k < depth; k += kDotDepth, w += block_bytes(kFormat)) {
    const std::size_t ahead = distance_ahead<kPanels>(panel_bytes(kFormat, depth - k), panel_stride);
    HWY_ALIGN float even[kRows][kDotLines], odd[kRows][kDotLines];
    repeat<kRows>([&](auto m) FOE_INLINE {
      const BF16* row = reinterpret_cast<const BF16*>(x[m]) + k;
      store16(load_even(row), even[m]);
      store16(load_odd(row), odd[m]);
    });
    repeat<kVecs>([&](auto i) FOE_INLINE {
      Chains<VF> chains[kRows][kPanels];
      repeat<kRows>([&](auto m)
                        FOE_INLINE { repeat<kPanels>([&](auto p) FOE_INLINE { chains[m][p] = begin_chains(); }); });
#pragma GCC unroll 4
      for (int line = 0; line < kDotLines; ++line)
        repeat<kPanels>([&](auto p) FOE_INLINE {
          const std::byte* at = w + line * kCacheLine + p * panel_stride;
          if constexpr (i == 0) read_ahead(at + ahead);
          const auto* pairs = reinterpret_cast<const BF16*>(at);
          const VF w_even = load_even(pairs, i), w_odd = load_odd(pairs, i);
          repeat<kRows>([&](auto m) FOE_INLINE {
            extend(chains[m][p], hn::Set(DF(), even[m][line]), hn::Set(DF(), odd[m][line]), w_even, w_odd);
          });
        });
      repeat<kRows>([&](auto m) FOE_INLINE {
        repeat<kPanels>([&](auto p) FOE_INLINE { acc[m][p].v[i] = take(acc[m][p].v[i], chains[m][p]); });
      });
    });
  }
  store_tile(acc, y, y_stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
