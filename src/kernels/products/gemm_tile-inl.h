// The register tile of every f32 product, in inference and in training: a few rows of A times panels of B, sixteen
// outputs wide, with vectors over the outputs. Each output is one chain of fused multiply-adds over ascending k, which
// starts from zero or from the old C, so the bits do not depend on blocking over k, on the shape of tiles or on the
// batch.

#if defined(FOE_KERNELS_GEMM_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_GEMM_TILE_INL_H_
#undef FOE_KERNELS_GEMM_TILE_INL_H_
#else
#define FOE_KERNELS_GEMM_TILE_INL_H_
#endif

#include <cstddef>

#include "kernels/vec16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// The size of the tile whose accumulators fill the registers: rows times panels of 16.
constexpr int kTileRows = kManyRegisters ? 8 : 6;
constexpr int kTilePanels = kManyRegisters ? 2 : 1;

constexpr std::size_t kCacheLine = 64;

// Returns how many bytes ahead to prefetch, if kPanels panels are multiplied at a time of which `left` bytes are left:
// processors prefetch by themselves only within a page. At the end of panels it is the distance to the beginning of
// those after them. AVX-512 multiplies twice as fast, so it prefetches further ahead.
template <int kPanels>
HWY_INLINE std::size_t distance_ahead(std::size_t left, std::size_t panel_stride) {
  constexpr std::size_t kAhead = (HWY_TARGET == HWY_AVX3 ? 8192 : 2048) / kPanels;
  return kAhead + (left > kAhead ? 0 : (kPanels - 1) * panel_stride);
}

// Prefetches a line. There is one call for each line that is read. The compiler must not move these calls together,
// because processors may drop most of many prefetches at once.
HWY_INLINE void read_ahead(const std::byte* at) {
  __builtin_prefetch(at, 0, 3);
  asm volatile("");
}

template <int kRows, int kPanels>
HWY_INLINE void clear_tile(V16 (&acc)[kRows][kPanels]) {
  repeat<kRows>([&](auto m) FOE_INLINE { repeat<kPanels>([&](auto p) FOE_INLINE { acc[m][p] = zero16(); }); });
}

// y[m * y_stride + 16 p + (0..15)] = acc[m][p].
template <int kRows, int kPanels>
HWY_INLINE void store_tile(const V16 (&acc)[kRows][kPanels], float* y, std::size_t y_stride) {
  repeat<kRows>([&](auto m) FOE_INLINE {
    repeat<kPanels>([&](auto p) FOE_INLINE { store16(acc[m][p], y + m * y_stride + p * kLanes16); });
  });
}

// acc[m][p] (+)= the sum over ascending k of a[m][k * a_step] * b[p][k * b_step + (0..15)]. `a` has kRows pointers to
// rows. kUnitStep says that a_step is 1, so that the compiler can fold it into the address.
template <int kRows, int kPanels, bool kUnitStep, typename T>
HWY_INLINE void multiply_scattered_panels(std::size_t depth, const float* const* HWY_RESTRICT a, std::size_t a_step,
                                          const T* const (&b)[kPanels], std::size_t b_step,
                                          V16 (&acc)[kRows][kPanels]) {
  const float* row[kRows];
  repeat<kRows>([&](auto m) FOE_INLINE { row[m] = a[m]; });
  for (std::size_t k = 0; k < depth; ++k) {
    const std::size_t at = kUnitStep ? k : k * a_step;
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const V16 w = load16(b[p] + k * b_step);
      repeat<kRows>([&](auto m) FOE_INLINE { acc[m][p] = fma(set16(row[m][at]), w, acc[m][p]); });
    });
  }
}

// The same with panels at equal distances.
template <int kRows, int kPanels, bool kUnitStep, typename T>
HWY_INLINE void multiply_tile(std::size_t depth, const float* const* HWY_RESTRICT a, std::size_t a_step,
                              const T* HWY_RESTRICT b, std::size_t b_step, std::size_t b_panel_stride,
                              V16 (&acc)[kRows][kPanels]) {
  const T* panels[kPanels];
  repeat<kPanels>([&](auto p) FOE_INLINE { panels[p] = b + p * b_panel_stride; });
  multiply_scattered_panels<kRows, kPanels, kUnitStep>(depth, a, a_step, panels, b_step, acc);
}

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
