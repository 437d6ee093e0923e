// Products of many rows with tile registers (kernels/products/amx.h). The bits are those that vectors compute: sums of
// integers are exact, and they are scaled and added as in quantised_tile-inl.h.

#if defined(FOE_KERNELS_AMX_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_AMX_PRODUCT_INL_H_
#undef FOE_KERNELS_AMX_PRODUCT_INL_H_
#else
#define FOE_KERNELS_AMX_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/aligned.h"
#include "kernels/products/amx.h"
#include "kernels/products/quantised_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

constexpr bool kMayTile = HWY_TARGET == HWY_AVX3;

constexpr int kRowsOfTile = 16;

// Where the results of some rows and panels will be written: `lines` cache lines of each row.
struct ResultLines {
  float* y = nullptr;
  std::size_t stride = 0;  // floats from row to row
  int rows = 0, lines = 0;

  // Prefetches part `part` of `parts` of the lines that a tile of rows writes.
  HWY_INLINE void ask(int tile, int part, int parts) const {
    const int first = tile * kRowsOfTile, some = std::min(kRowsOfTile, rows - first);
    for (int i = first + some * part / parts; i < first + some * (part + 1) / parts; ++i)
      for (int line = 0; line < lines; ++line) __builtin_prefetch(y + i * stride + line * kPanel, 1, 3);
  }
};

#if HWY_TARGET == HWY_AVX3

// How many tiles a block of integers takes along the depth.
constexpr int kBlockTiles = kCodeBlock / amx::kTileRowBytes;

// Pairs are twice as large as codes. They are prefetched this far ahead, and into the second-level cache, because the
// first-level one can wait for too few lines at a time to keep memory busy.
constexpr std::size_t kFarAhead = 8192;  // bytes of a panel
HWY_INLINE void read_far_ahead(const std::byte* at) {
  __builtin_prefetch(at, 0, 2);
  asm volatile("");
}

// Rows of activations in the form that tiles load: consecutive rows, of which the last few, if they do not fill a tile,
// are elsewhere.
struct TiledRows {
  const std::byte* rows = nullptr;
  std::size_t stride = 0;
  const std::byte* last = nullptr;  // the last tile, if the rows do not fill it
  int whole_tiles = 0, blocks = 0;

  HWY_INLINE const std::byte* tile(int i) const { return i < whole_tiles ? rows + i * amx::kTileRows * stride : last; }
  HWY_INLINE const RowBlock* block(int i, int block) const { return &row_block(tile(i), block); }
};

// Decodes a block of a panel into bytes for tiles: [k / 4][16 rows][4 k].
HWY_INLINE void decode_int4(const std::byte* block, __m512i table, std::byte* to) {
  constexpr int kParts = kCodeBlock / kInt4Part;
  Int4Choices choices;
  choices.load(block);
  const std::byte* line = block + head_bytes(WeightFormat::kInt4);
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    const __m512i factors = choices.factors(part);
    for (int half_part = 0; half_part < 2; ++half_part, line += kCacheLine) {
      const __m512i codes = _mm512_loadu_si512(line);
      for (int half = 0; half < 2; ++half, to += kCacheLine)
        _mm512_store_si512(to, look_up_int4(table, codes, half, factors));
    }
  }
}

// The sums of 16 rows and kPanels panels over one block, and how they are added: acc[row][panel][16] += sums * scales
// of the weights * scales of the rows.
template <int kPanels>
struct BlockSums {
  alignas(64) std::int32_t sums[kPanels][amx::kTileRows][kPanel];
  V16 scales[kPanels];
  const RowBlock* rows;  // the first one; the others follow at row_stride
  std::size_t row_stride;
  float* acc;
  __mmask16 begun;  // which lanes of acc are initialised: all or, in the first block, none

  // Returns a function that adds rows [kFirst, kFirst + kRows). It keeps its variables in registers, because tiles are
  // loaded and stored between its calls, which compilers take for changes of any memory.
  HWY_INLINE auto adder() const {
    return [from = &sums[0][0][0], scale = std::to_array(scales), row = &rows->scale,
            stride = row_stride / sizeof(float), to = acc, begun_now = begun]<int kFirst, int kRows>() FOE_INLINE {
      repeat<kRows>([&](auto i) FOE_INLINE {
        constexpr int kRow = kFirst + i;
        const float row_scale = row[kRow * stride];
        repeat<kPanels>([&](auto p) FOE_INLINE {
          float* const at = to + (kRow * kPanels + p) * kPanel;
          const VI32 sum = hn::Load(DI32(), from + (p * amx::kTileRows + kRow) * kPanel);
          store16(add_block([&](int) FOE_INLINE { return sum; }, scale[p], row_scale,
                            V16{VF{_mm512_maskz_loadu_ps(begun_now, at)}}),
                  at);
        });
      });
    };
  }
};

// acc[row][panel][16] = the rows of tiles [first, first + tiles) times kPanels panels from w on. The weights of a block
// stay in tile registers for all rows. While tiles multiply, vectors add the sums of the product before, so that
// neither waits. Rows, weights and the lines of the results are prefetched.
template <WeightFormat kFormat, int kPanels>
HWY_NOINLINE void multiply_on_tiles(const TiledRows& x, int first, int tiles, const std::byte* w,
                                    std::size_t panel_stride, float* acc, const ResultLines& results) {
  constexpr std::size_t kTileFloats = amx::kTileRows * kPanels * kPanel;
  constexpr int kRows = 2, kWeights = 4;  // tile registers: two for sums, two for rows, and four for weights
  constexpr int kLines = static_cast<int>(block_bytes(kFormat) / kCacheLine);
  static_assert(kPanels <= 2 && kBlockTiles == 2);
  BlockSums<kPanels> before;
  const auto load_rows = [&](const RowBlock* rows, auto t)
                             FOE_INLINE { amx::load<kRows + t>(rows->codes + t * amx::kTileRowBytes, x.stride); };
  repeat<kBlockTiles>([&](auto t) FOE_INLINE { load_rows(x.block(first, 0), t); });
  const int ahead_lines = (kLines + tiles - 1) / tiles;
  for (int block = 0; block < x.blocks; ++block, w += block_bytes(kFormat)) {
    V16 scales[kPanels];
    repeat<kPanels>([&](auto p) FOE_INLINE {
      const std::byte* panel = w + p * panel_stride;
      scales[p] = load_scales<kFormat>(panel);
      [[maybe_unused]] alignas(64) std::byte decoded[kBlockTiles * amx::kTileBytes];
      const std::byte* bytes = panel + head_bytes(kFormat);
      if constexpr (kFormat == WeightFormat::kInt4) {
        decode_int4(panel, int4_table(0), decoded);
        bytes = decoded;
      }
      repeat<kBlockTiles>([&](auto t)
                              FOE_INLINE { amx::load<kWeights + kBlockTiles * p + t>(bytes + t * amx::kTileBytes); });
    });
    // The next block of these panels or, at their end, the first block of the panels after them.
    const std::byte* ahead = w + block_bytes(kFormat) + (block + 1 < x.blocks ? 0 : (kPanels - 1) * panel_stride);
    for (int tile = 0; tile < tiles; ++tile, ahead += ahead_lines * kCacheLine) {
      const RowBlock* const rows = x.block(first + tile, block);
      const bool last = tile + 1 == tiles;
      const RowBlock* const next_rows =
          x.block(first + (last ? 0 : tile + 1), last ? std::min(block + 1, x.blocks - 1) : block);
      const auto step = [&](auto&& add_rows) FOE_INLINE {
        repeat<kPanels>([](auto p) FOE_INLINE { amx::zero<p>(); });
        repeat<kBlockTiles>([&](auto t) FOE_INLINE {
          repeat<kPanels>([&](auto p) FOE_INLINE {
            amx::multiply_bytes<p, kRows + t, kWeights + kBlockTiles * p + t>();
            if constexpr (p == kPanels - 1) load_rows(next_rows, t);
            constexpr int kSome = amx::kTileRows / (kBlockTiles * kPanels);
            add_rows.template operator()<kSome*(kPanels * t + p), kSome>();
          });
        });
      };
      repeat<kPanels>([&](auto p) FOE_INLINE {
        for (int i = 0; i < ahead_lines; ++i) read_ahead(ahead + p * panel_stride + i * kCacheLine);
      });
      results.ask(tile, block, x.blocks);
      if (block == 0 && tile == 0)
        step([]<int kFirst, int kCount>() FOE_INLINE {});
      else
        step(before.adder());
      repeat<kPanels>([&](auto p) FOE_INLINE {
        amx::store<p>(before.sums[p]);
        before.scales[p] = scales[p];
      });
      before.rows = rows, before.row_stride = x.stride;
      before.acc = acc + tile * kTileFloats;
      before.begun = static_cast<__mmask16>(block == 0 ? 0 : 0xffff);
    }
  }
  before.adder().template operator()<0, amx::kTileRows>();
}

// The same for pairs of bf16, whose sums stay in tiles. It multiplies kChunk blocks at a time, so that these weights
// stay in the first-level cache for all rows.
template <int kPanels>
class PairsOnTiles {
 public:
  static HWY_NOINLINE void multiply(const TiledRows& x, int first, int tiles, const std::byte* w,
                                    std::size_t panel_stride, float* acc, const ResultLines& results) {
    constexpr std::size_t kTileFloats = amx::kTileRows * kPanels * kPanel;
    const int turns = (tiles + 1) / 2, chunks = (x.blocks + kChunk - 1) / kChunk;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int begin = chunk * kChunk, blocks = std::min(kChunk, x.blocks - begin);
      const std::byte* here = w + begin * kBlockBytes;
      // The next chunk of these panels or, at their end, the first chunk of the panels after them.
      const std::size_t left = (x.blocks - begin) * kBlockBytes;
      Ahead ahead{here + kFarAhead + (left > kFarAhead ? 0 : (kPanels - 1) * panel_stride), panel_stride,
                  (kChunk * kLines + turns * blocks - 1) / (turns * blocks)};
      for (int tile = 0; tile < tiles; tile += 2) {
        results.ask(tile, chunk, chunks);
        results.ask(tile + 1, chunk, chunks);
        const std::byte* rows[2] = {x.tile(first + tile), x.tile(first + std::min(tile + 1, tiles - 1))};
        float* to = acc + tile * kTileFloats;
        if (tile + 1 < tiles)
          multiply_chunk<2>(rows, x.stride, begin, blocks, here, panel_stride, to, ahead);
        else
          multiply_chunk<1>(rows, x.stride, begin, blocks, here, panel_stride, to, ahead);
      }
    }
  }

 private:
  static constexpr int kChunk = 8;
  static constexpr std::size_t kBlockBytes = block_bytes(WeightFormat::kBF16xBF16);
  static constexpr int kLines = kBlockBytes / kCacheLine;
  static_assert(kBlockBytes == amx::kTileBytes);

  // Weights to prefetch: so many lines of each panel in each step.
  struct Ahead {
    const std::byte* at;
    std::size_t panel_stride;
    int lines;

    HWY_INLINE void ask() {
      for (int i = 0; i < lines; ++i, at += kCacheLine)
        repeat<kPanels>([&](auto p) FOE_INLINE { read_far_ahead(at + p * panel_stride); });
    }
  };

  template <int kTiles>
  static HWY_INLINE void multiply_chunk(const std::byte* const (&rows)[2], std::size_t stride, int begin, int blocks,
                                        const std::byte* w, std::size_t panel_stride, float* acc, Ahead& ahead) {
    constexpr int kRows = 4, kWeights = 6;  // tile registers: four for sums, two for rows and two for weights
    constexpr std::size_t kAccStride = kPanels * kPanel * sizeof(float);
    const auto each_sum = [&](auto&& body) FOE_INLINE {
      repeat<kTiles>([&](auto m) FOE_INLINE {
        repeat<kPanels>([&](auto p) FOE_INLINE { body(m, p, acc + (m * amx::kTileRows * kPanels + p) * kPanel); });
      });
    };
    each_sum([&](auto m, auto p, float* at) FOE_INLINE {
      if (begin == 0)
        amx::zero<m * kPanels + p>();
      else
        amx::load<m * kPanels + p>(at, kAccStride);
    });
    for (int block = 0; block < blocks; ++block) {
      repeat<kTiles>([&](auto m) FOE_INLINE {
        amx::load<kRows + m>(rows[m] + (begin + block) * amx::kTileRowBytes, stride);
        repeat<kPanels>([&](auto p) FOE_INLINE {
          if constexpr (m == 0) amx::load<kWeights + p>(w + block * kBlockBytes + p * panel_stride);
          amx::multiply_bf16<m * kPanels + p, kRows + m, kWeights + p>();
        });
      });
      ahead.ask();
    }
    each_sum([&](auto m, auto p, float* at) FOE_INLINE { amx::store<m * kPanels + p>(at, kAccStride); });
  }
};

#else

class TiledRows {};

#endif

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
