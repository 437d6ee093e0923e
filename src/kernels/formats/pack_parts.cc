#include "kernels/formats/pack_parts.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "kernels/formats/stored_blocks.h"

namespace foe {
namespace {

template <typename T>
void place(const T& value, std::byte* array, int index) {
  std::memcpy(array + index * sizeof value, &value, sizeof value);
}

F16 half_at(const std::uint8_t* from) {
  F16 half;
  std::memcpy(&half, from, sizeof half);
  return half;
}

// Where the low halves of k and k + 4 of a row are among lines of halves.
std::size_t place_of_halves(int k, int r) {
  return (k / 8 * kPanel + r) * 4 + k % 4;
}

// `in` has the blocks of 32 from `k` on.
void place_q8_0(const std::uint8_t* in, int depth, int r, std::byte* block) {
  for (int part = 0; part * 32 < depth; ++part, in += 34) {
    place(half_at(in), block, part * kPanel + r);
    std::byte* out = block + head_bytes(WeightFormat::kQ8_0) + part * 8 * kPanel * 4;
    for (int k = 0; k < 32; k += 4) std::memcpy(out + (k / 4 * kPanel + r) * 4, in + 2 + k, 4);
  }
}

F16 negative(F16 half) {
  return {static_cast<std::uint16_t>(half.bits ^ 0x8000u)};
}

// Returns what q4_0 subtracts, exactly.
F16 eight_times(F16 d) {
  unsigned magnitude = d.bits & 0x7fffu;
  for (int doubling = 0; doubling < 3; ++doubling) magnitude = magnitude < 0x400u ? 2 * magnitude : magnitude + 0x400u;
  if (magnitude >= 0x7c00u)
    fail("expected scales of q4_0 smaller than 8192, which a panel can hold, got {}: ask for another format",
         to_float(d));
  return {static_cast<std::uint16_t>((d.bits & 0x8000u) | magnitude)};
}

// `in` has the blocks of 32 of q4_0 or q4_1 from `k` on.
void place_q4_1(const std::uint8_t* in, DType type, int depth, int r, std::byte* block) {
  std::byte* const out = block + head_bytes(WeightFormat::kQ4_1);
  for (int part = 0; part * 32 < depth; ++part, in += info_of(type).bytes) {
    place(half_at(in), block, part * kPanel + r);
    const F16 m = type == DType::kQ4_0 ? eight_times(half_at(in)) : negative(half_at(in + 2));
    place(m, block, (4 + part) * kPanel + r);
    const std::uint8_t* low = in + (type == DType::kQ4_0 ? 2 : 4);
    for (int i = 0; i < 32; ++i) {
      const int code = low[i % 16] >> i / 16 * 4 & 15;
      out[place_of_halves(32 * part + i, r)] |= static_cast<std::byte>(code << i / 4 % 2 * 4);
    }
  }
}

// Half `half` of the block at `in`.
void place_q4_k(const std::uint8_t* in, int half, int r, std::byte* block) {
  place(half_at(in), block, r);
  place(half_at(in + 2), block, kPanel + r);
  std::byte* const pairs = block + 64;
  std::byte* const out = block + head_bytes(WeightFormat::kQ4_K);
  for (int part = 0; part < 4; ++part) {
    const int j = 4 * half + part;
    const PairOfCodes codes = pair_of_codes(in, j);
    pairs[2 * part * kPanel + r] = static_cast<std::byte>(codes.s);
    pairs[(2 * part + 1) * kPanel + r] = static_cast<std::byte>(codes.t);
    const std::uint8_t* low = in + 16 + j / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int k = 32 * part + i, code = low[i] >> j % 2 * 4 & 15;
      out[place_of_halves(k, r)] |= static_cast<std::byte>(code << k / 4 % 2 * 4);
    }
  }
}

void place_q6_k(const std::uint8_t* in, int half, int r, std::byte* block) {
  place(to_float(half_at(in + 208)), block, r);
  const std::uint8_t *low = in + half * 64, *high = in + 128 + half * 32, *s = in + 192 + half * 8;
  for (int part = 0; part < 8; ++part) {
    block[64 + part * kPanel + r] = static_cast<std::byte>(s[part]);
    std::byte* const pairs = block + head_bytes(WeightFormat::kQ6_K) + part * 3 * 64;
    std::byte* const halves = pairs + 64;
    for (int i = 0; i < 16; ++i) {
      const int k = 16 * part + i;
      const int of_low = low[k % 64] >> k / 64 * 4 & 15, of_high = high[k % 32] >> k / 32 * 2 & 3;
      halves[place_of_halves(i, r)] |= static_cast<std::byte>(of_low << i / 4 % 2 * 4);
      pairs[r * 4 + i % 4] |= static_cast<std::byte>(of_high << i / 4 * 2);
    }
  }
}

std::optional<WeightFormat> parts_of(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return WeightFormat::kQ8_0;
    case DType::kQ4_0:
    case DType::kQ4_1:
      return WeightFormat::kQ4_1;
    case DType::kQ4_K:
      return WeightFormat::kQ4_K;
    case DType::kQ6_K:
      return WeightFormat::kQ6_K;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<WeightFormat> keeps_parts(const StoredMatrix& matrix) {
  const auto format = parts_of(matrix.type);
  if (!format) return format;
  // A file's block of 32 is a part; of the others, a block here is a half.
  const int unit = std::min(info_of(matrix.type).elements, kCodeBlock);
  if (matrix.skip % unit != 0 || matrix.depth % unit != 0) return std::nullopt;
  return format;
}

void place_parts(const StoredMatrix& source, int from, int r, std::byte* panel) {
  const WeightFormat format = *keeps_parts(source);
  const auto* row = reinterpret_cast<const std::uint8_t*>(source.data + from * source.row_bytes);
  const DTypeInfo& block = info_of(source.type);
  for (int k = 0; k < source.depth; k += kCodeBlock, panel += block_bytes(format)) {
    const int at = source.skip + k;
    const std::uint8_t* in = row + at / block.elements * block.bytes;
    const int half = at % block.elements / kCodeBlock, depth = std::min(kCodeBlock, source.depth - k);
    if (format == WeightFormat::kQ8_0)
      place_q8_0(in, depth, r, panel);
    else if (format == WeightFormat::kQ4_1)
      place_q4_1(in, source.type, depth, r, panel);
    else
      (format == WeightFormat::kQ4_K ? place_q4_k : place_q6_k)(in, half, r, panel);
  }
}

}  // namespace foe
