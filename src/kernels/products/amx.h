// Intel's Advanced Matrix Extensions (AMX): eight tile registers of 16 rows of 64 bytes, and instructions that multiply
// them. Nothing here may be called unless tiles() (kernels/cpu.h) is true.
//
// A product adds A B to C. A and C have a row for each row of activations, and C has a column for each of 16 outputs.
// Each row of B holds, for all 16 outputs, the weights of four (bytes) or two (bf16) neighbouring k of A:
//
//   integers   A [16][64 k] signed bytes, B [16][16 outputs][4 k] signed bytes, C [16][16] 32-bit sums: exact
//   bf16       A [16][32 k], B [16][16 outputs][2 k], C [16][16] f32: from zero a chain of fused multiply-adds over
//              even k and one over odd k, their sum, then C plus that; subnormal numbers count as zero everywhere
//
// All asm statements are volatile and clobber memory, because compilers know neither which tile registers are in use
// nor what is read.
#pragma once

#if defined(__x86_64__)

#include <cstddef>
#include <cstdint>

namespace foe::amx {

inline constexpr int kTileRows = 16, kTileRowBytes = 64, kTileBytes = kTileRows * kTileRowBytes;

// While it lives, all eight tiles of the calling thread have their full size. Each thread that multiplies needs one.
// Making it takes about as long as a few products.
class Tiles {
 public:
  Tiles() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = kTileRowBytes;
      config.rows[tile] = kTileRows;
    }
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  ~Tiles() { asm volatile("tilerelease" : : : "memory"); }
  Tiles(const Tiles&) = delete;
};

template <int kTile>
inline __attribute__((always_inline)) void zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile) : "memory");
}

// load() and store() take rows of 64 bytes that are `stride` bytes apart. Rows that are cache lines load in half the
// time.
template <int kTile>
inline __attribute__((always_inline)) void load(const void* rows, std::size_t stride = kTileRowBytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline __attribute__((always_inline)) void store(void* rows, std::size_t stride = kTileRowBytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}

// Add tile A times tile B, of signed bytes or of bf16, to tile C.
template <int kC, int kA, int kB>
inline __attribute__((always_inline)) void multiply_bytes() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB) : "memory");
}
template <int kC, int kA, int kB>
inline __attribute__((always_inline)) void multiply_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB) : "memory");
}

}  // namespace foe::amx

#endif
