// Multiplies tiles of rows with panels of pairs (kernels/products/bgemm_pack-inl.h), on tile registers or on vectors.

#if defined(FOE_KERNELS_BGEMM_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_BGEMM_TILE_INL_H_
#undef FOE_KERNELS_BGEMM_TILE_INL_H_
#else
#define FOE_KERNELS_BGEMM_TILE_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include "kernels/products/amx.h"
#include "kernels/products/bgemm_pack-inl.h"
#include "kernels/products/gemm_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

// A part of C, and the operands of its next few k: C [rows, columns] (+)= tiles of A times panels of B.
struct PairBlock {
  const BF16* a;  // [rows / 16][blocks] tiles of rows
  const BF16* b;  // [blocks] tiles of pairs, panels panel_stride apart
  std::size_t panel_stride;
  int blocks;  // of 32 k
  Rows<float> c;
  int row, rows, column, columns;
  bool add;
};

// 16 rows and columns of C: where they are or, if some of them do not exist or rows are gathered, a copy.
class ResultTile {
 public:
  ResultTile(const PairBlock& block, int row, int column)
      : c_(block.c),
        row_(block.row + row),
        rows_(std::min(kLanes16, block.rows - row)),
        column_(block.column + column),
        columns_(std::min(kLanes16, block.columns - column)),
        whole_(!c_.rows && rows_ == kLanes16 && columns_ == kLanes16) {
    if (whole_ || !block.add) return;
    for (int i = 0; i < rows_; ++i) store16(load_some(c_.row(row_ + i) + column_, columns_), copy_[i]);
  }
  float* data() { return whole_ ? c_.row(row_) + column_ : copy_[0]; }
  std::size_t stride() const { return whole_ ? c_.stride : kLanes16; }
  // To be called when the tile has been computed.
  void finish() {
    if (whole_) return;
    for (int i = 0; i < rows_; ++i) {
      float* to = c_.row(row_ + i) + column_;
      columns_ == kLanes16 ? store16(load16(copy_[i]), to) : store_first(load16(copy_[i]), to, columns_);
    }
  }

 private:
  Rows<float> c_;
  int row_, rows_, column_, columns_;
  bool whole_;
  alignas(64) float copy_[kLanes16][kLanes16];
};

// kRows rows of one tile of C.
template <int kRows>
HWY_INLINE void multiply_pair_rows(const BF16* a, const BF16* b, int blocks, bool add, float* c, std::size_t stride) {
  V16 acc[kRows][1];
  repeat<kRows>([&](auto m) FOE_INLINE { acc[m][0] = add ? load16(c + m * stride) : zero16(); });
  for (int block = 0; block < blocks; ++block, a += kPairTile, b += kPairTile) {
    HWY_ALIGN float even[kRows][kDotLines], odd[kRows][kDotLines];
    repeat<kRows>([&](auto m) FOE_INLINE {
      store16(load_even(a + m * kPairLine), even[m]);
      store16(load_odd(a + m * kPairLine), odd[m]);
    });
    repeat<kVecs>([&](auto i) FOE_INLINE {
      Chains<VF> chains[kRows];
      repeat<kRows>([&](auto m) FOE_INLINE { chains[m] = begin_chains(); });
      for (int line = 0; line < kDotLines; ++line) {
        const VF b_even = load_even(b + line * kPairLine, i), b_odd = load_odd(b + line * kPairLine, i);
        repeat<kRows>([&](auto m) FOE_INLINE {
          extend(chains[m], hn::Set(DF(), even[m][line]), hn::Set(DF(), odd[m][line]), b_even, b_odd);
        });
      }
      repeat<kRows>([&](auto m) FOE_INLINE { acc[m][0].v[i] = take(acc[m][0].v[i], chains[m]); });
    });
  }
  store_tile(acc, c, stride);
}

// Computes all of a block with vectors.
HWY_NOINLINE void multiply_on_vectors(const PairBlock& t) {
  constexpr int kRows = kManyRegisters ? 8 : 4;
  const std::size_t a_tile = static_cast<std::size_t>(t.blocks) * kPairTile;
  for (int n = 0; n < t.columns; n += kLanes16)
    for (int m = 0; m < t.rows; m += kLanes16) {
      ResultTile c(t, m, n);
      for (int r = 0; r < std::min(kLanes16, t.rows - m); r += kRows)
        multiply_pair_rows<kRows>(t.a + m / kLanes16 * a_tile + r * kPairLine, t.b + n / kLanes16 * t.panel_stride,
                                  t.blocks, t.add, c.data() + r * c.stride(), c.stride());
      c.finish();
    }
}

#if HWY_TARGET == HWY_AVX3

// Prefetches part `part` of `parts` of the rows of C that the next two tiles of rows write.
HWY_INLINE void ask_for_results(const PairBlock& t, int row, int column, int part, int parts) {
  const int next = row + 2 * kLanes16, rows = std::min(2 * kLanes16, t.rows - next);
  for (int i = rows * part / parts; i < rows * (part + 1) / parts; ++i) {
    const float* c = t.c.row(t.row + next + i) + t.column + column;
    __builtin_prefetch(c, 1);
    __builtin_prefetch(c + kLanes16, 1);
  }
}

// kTiles tiles of rows times kPanels panels.
template <int kTiles, int kPanels>
HWY_NOINLINE void multiply_tile_registers(const PairBlock& t, int row, int column) {
  constexpr int kA = 4, kB = 6;  // tile registers: four for sums, two for A and two for B
  const std::size_t a_tile = static_cast<std::size_t>(t.blocks) * kPairTile;
  const BF16* a = t.a + row / kLanes16 * a_tile;
  const BF16* b = t.b + column / kLanes16 * t.panel_stride;
  const auto each_tile = [&](auto&& body) FOE_INLINE {
    repeat<kTiles>([&](auto m) FOE_INLINE { repeat<kPanels>([&](auto p) FOE_INLINE { body(m, p); }); });
  };
  ResultTile c[] = {{t, row, column},  // of which some may not exist
                    {t, row, column + kLanes16},
                    {t, row + kLanes16, column},
                    {t, row + kLanes16, column + kLanes16}};
  each_tile([&](auto m, auto p) FOE_INLINE {
    ResultTile& tile = c[2 * m + p];
    if (t.add)
      amx::load<2 * m + p>(tile.data(), tile.stride() * sizeof(float));
    else
      amx::zero<2 * m + p>();
  });
  for (int block = 0; block < t.blocks; ++block, a += kPairTile, b += kPairTile) {
    repeat<kPanels>([&](auto p) FOE_INLINE { amx::load<kB + p>(b + p * t.panel_stride); });
    repeat<kTiles>([&](auto m) FOE_INLINE {
      amx::load<kA + m>(a + m * a_tile);
      repeat<kPanels>([&](auto p) FOE_INLINE { amx::multiply_bf16<2 * m + p, kA + m, kB + p>(); });
    });
    ask_for_results(t, row, column, block, t.blocks);
  }
  each_tile([&](auto m, auto p) FOE_INLINE {
    ResultTile& tile = c[2 * m + p];
    amx::store<2 * m + p>(tile.data(), tile.stride() * sizeof(float));
    tile.finish();
  });
}

// Computes all of a block with tile registers: two panels at a time, which stay in the first-level cache for all rows.
inline void multiply_on_tile_registers(const PairBlock& t) {
  constexpr int kTwo = 2 * kLanes16;
  for (int n = 0; n < t.columns; n += kTwo)
    for (int m = 0; m < t.rows; m += kTwo) {
      const bool two_panels = t.columns - n > kLanes16, two_tiles = t.rows - m > kLanes16;
      const auto multiply = two_panels ? (two_tiles ? multiply_tile_registers<2, 2> : multiply_tile_registers<1, 2>)
                                       : (two_tiles ? multiply_tile_registers<2, 1> : multiply_tile_registers<1, 1>);
      multiply(t, m, n);
    }
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
