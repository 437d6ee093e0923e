// Blocks of weights in q8_0, q4_1, q4_k and q6_k as the tiles of parts.cc read them: as they are packed
// (weight_format.h), or unpacked once for many rows. Codes are unsigned: those of q8_0 with 128 added, and those of
// q6_k as they are. With dot product instructions a vector has four codes of 16 rows. Without them products of bytes
// are added in 16 bits, which suffice for codes of six bits; a code of q8_0 is two of four bits, and a vector has one
// plane of these.

#if defined(FOE_KERNELS_PARTS_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FOE_KERNELS_PARTS_BLOCK_INL_H_
#undef FOE_KERNELS_PARTS_BLOCK_INL_H_
#else
#define FOE_KERNELS_PARTS_BLOCK_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "kernels/products/quantised_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace foe {
namespace HWY_NAMESPACE {

HWY_INLINE V16 load16(const F16* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  return make16([&](int i) FOE_INLINE {
    return hn::PromoteTo(DF(), hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p) + i * kVecLanes));
  });
}
HWY_INLINE V16 load16(const std::uint8_t* p) {
  const hn::Rebind<std::uint8_t, DF> d8;
  return make16(
      [&](int i) FOE_INLINE { return hn::ConvertTo(DF(), hn::PromoteTo(DI32(), hn::LoadU(d8, p + i * kVecLanes))); });
}

// One byte of each pair is shifted into the other, which has to be masked.
template <int kBits>
HWY_INLINE VU8 shift_right(VU8 v) {
  const hn::Repartition<std::uint16_t, DF> d16;
  return hn::BitCast(DU8(), hn::ShiftRight<kBits>(hn::BitCast(d16, v)));
}
template <int kBits>
HWY_INLINE VU8 shift_left(VU8 v) {
  const hn::Repartition<std::uint16_t, DF> d16;
  return hn::BitCast(DU8(), hn::ShiftLeft<kBits>(hn::BitCast(d16, v)));
}

// A block of a panel, as it is packed.
template <WeightFormat kFormat, bool kDots>
class PackedBlock {
 public:
  PackedBlock() = default;
  // Reads `ahead` bytes ahead, if that is not 0.
  HWY_INLINE PackedBlock(const std::byte* at, std::size_t ahead) : at_(at), ahead_(ahead) {
    if constexpr (kFormat == WeightFormat::kQ4_K) {
      d_ = load16(reinterpret_cast<const F16*>(at));
      m_ = mul(load16(reinterpret_cast<const F16*>(at) + kPanel), set16(1.0f / kCodeOffset));
    } else if constexpr (kFormat == WeightFormat::kQ6_K) {
      d_ = load16(reinterpret_cast<const float*>(at));
    }
  }

  // Vector i of four codes of each row, of plane `plane`.
  HWY_INLINE VU8 codes(int part, int quad, int plane, int i) const {
    const VU8 half = hn::Set(DU8(), 15);
    const auto line = [&](int index) FOE_INLINE {
      const std::byte* from = at_ + head_bytes(kFormat) + index * kCacheLine + i * 4 * kVecLanes;
      return hn::LoadU(DU8(), reinterpret_cast<const std::uint8_t*>(from));
    };
    if constexpr (kFormat == WeightFormat::kQ8_0) {
      const VU8 code = hn::Xor(line(8 * part + quad), hn::Set(DU8(), kCodeOffset));
      if constexpr (kDots) return code;
      return plane == 0 ? hn::And(code, half) : hn::And(shift_right<4>(code), half);
    } else if constexpr (has_minimums(kFormat)) {
      const VU8 both = line(4 * part + quad / 2);
      return hn::And(quad % 2 == 0 ? both : shift_right<4>(both), half);
    } else {
      const VU8 pairs = line(3 * part), both = line(3 * part + 1 + quad / 2);
      const VU8 low = hn::And(quad % 2 == 0 ? both : shift_right<4>(both), half);
      const VU8 high = quad == 0   ? shift_left<4>(pairs)
                       : quad == 1 ? shift_left<2>(pairs)
                       : quad == 2 ? pairs
                                   : shift_right<2>(pairs);
      return hn::OrAnd(low, high, hn::Set(DU8(), 0x30));
    }
  }
  // The scale of a part. A product of d and s is exact.
  HWY_INLINE V16 scale(int part) const {
    if constexpr (kFormat == WeightFormat::kQ8_0 || kFormat == WeightFormat::kQ4_1)
      return load16(reinterpret_cast<const F16*>(at_) + part * kPanel);
    else if constexpr (kFormat == WeightFormat::kQ4_K)
      return mul(d_, load16(reinterpret_cast<const std::uint8_t*>(at_) + 64 + 2 * part * kPanel));
    else
      return mul(d_, load16(reinterpret_cast<const std::int8_t*>(at_) + 64 + part * kPanel));
  }
  // The minimum of a part / kCodeOffset, which -kCodeOffset * the sum of codes multiplies.
  HWY_INLINE V16 min(int part) const {
    if constexpr (kFormat == WeightFormat::kQ4_1)
      return mul(load16(reinterpret_cast<const F16*>(at_) + (4 + part) * kPanel), set16(1.0f / kCodeOffset));
    return mul(m_, load16(reinterpret_cast<const std::uint8_t*>(at_) + 64 + (2 * part + 1) * kPanel));
  }
  // Prefetches what a quad's share of lines is, and with the first one the head.
  HWY_INLINE void ahead(int part, int quad) const {
    constexpr int kHead = head_bytes(kFormat) / kCacheLine;
    const std::byte* const from = at_ + ahead_;
    if (part == 0 && quad < kHead) read_ahead(from + quad * kCacheLine);
    if constexpr (kFormat == WeightFormat::kQ8_0) {
      read_ahead(from + (kHead + 8 * part + quad) * kCacheLine);
    } else if constexpr (has_minimums(kFormat)) {
      if (quad % 2 == 1) read_ahead(from + (kHead + 4 * part + quad / 2) * kCacheLine);
    } else {
      if (quad < 3) read_ahead(from + (kHead + 3 * part + quad) * kCacheLine);
    }
  }

 private:
  const std::byte* at_ = nullptr;
  std::size_t ahead_ = 0;
  V16 d_, m_;
};

// The same for many rows.
template <WeightFormat kFormat, bool kDots>
class UnpackedBlock {
  static constexpr int kPlanes = kFormat == WeightFormat::kQ8_0 && !kDots ? 2 : 1;
  static constexpr int kParts = kCodeBlock / part_depth(kFormat), kQuads = part_depth(kFormat) / 4;

 public:
  HWY_INLINE void unpack(const PackedBlock<kFormat, kDots>& block) {
    for (int part = 0; part < kParts; ++part) {
      repeat<kQuads>([&](auto quad) FOE_INLINE {
        repeat<kPlanes>([&](auto plane) FOE_INLINE {
          repeat<kVecs>([&](auto i) FOE_INLINE {
            hn::StoreU(block.codes(part, quad, plane, i), DU8(), place(part, quad, plane, i));
          });
        });
      });
      store16(block.scale(part), scales_[part]);
      if constexpr (has_minimums(kFormat)) store16(block.min(part), mins_[part]);
    }
  }
  HWY_INLINE VU8 codes(int part, int quad, int plane, int i) const {
    return hn::LoadU(DU8(), const_cast<UnpackedBlock*>(this)->place(part, quad, plane, i));
  }
  HWY_INLINE V16 scale(int part) const { return load16(scales_[part]); }
  HWY_INLINE V16 min(int part) const { return load16(mins_[part]); }
  HWY_INLINE void ahead(int, int) const {}

 private:
  HWY_INLINE std::uint8_t* place(int part, int quad, int plane, int i) {
    return codes_[(part * kQuads + quad) * kPlanes + plane] + i * 4 * kVecLanes;
  }
  alignas(64) std::uint8_t codes_[kPlanes * kCodeBlock / 4][4 * kPanel];
  float scales_[kParts][kPanel];
  float mins_[has_minimums(kFormat) ? kParts : 1][kPanel];
};

}  // namespace HWY_NAMESPACE
}  // namespace foe
HWY_AFTER_NAMESPACE();

#endif
