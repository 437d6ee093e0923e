// Decodes weights as files store them. Types in blocks are those of GGUF (github.com/ggml-org/ggml, docs/gguf.md and
// ggml-common.h). d and m are scales in f16, q is an unsigned code, and a code of b bits is put together from the low
// bits and one or two high bits that stand apart:
//
//   q4_0   32 elements: d; 16 bytes, the low halves for elements 0 to 15, the high ones for 16 to 31. d * (q - 8)
//   q4_1   d, m; as q4_0. d * q + m
//   q5_0   d; 32 high bits; as q4_0. d * (q - 16)
//   q5_1   d, m; 32 high bits; as q4_0. d * q + m
//   q8_0   d; 32 signed bytes. d * byte
//   q4_k   256: d, m; 8 pairs (s, t) of 6 bits in 12 bytes; 4 times 32 bytes, whose low halves are 32 elements and
//          whose high halves the next 32. Each 32 elements have their s and t: d * s * q - m * t
//   q5_k   d, m; 12 bytes as q4_k; 32 bytes of high bits, bit i of byte j for element 32 i + j; low bits as q4_k
//   q6_k   256: low halves, 64 bytes for each 128 elements: low halves of bytes 0 to 63 for the first 64, then the high
//          ones; pairs of high bits, 32 bytes for each 128, bits 2 i of byte j for element 32 i + j; 16 signed scales s
//          of 16 elements each; d. d * s * (q - 32)
//   mxfp4  32: an exponent byte e; 16 bytes as q4_0. 2^(e - 127) * kFp4Levels[q], and no number if e is 255
//          (OCP Microscaling Formats 1.0)
//
// A product of d and s is rounded to f32 before it multiplies q, and both terms are before they are added.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace foe {

// The numbers of four bits (E2M1): a sign, two bits of exponent and one of mantissa.
inline constexpr float kFp4Levels[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, 0, -.5f, -1, -1.5f, -2, -3, -4, -6};

// The j-th pair of a block of q4_k or q5_k, which begins at `block`.
struct PairOfCodes {
  unsigned s, t;
};
PairOfCodes pair_of_codes(const std::uint8_t* block, int j);

// Writes `elements`, which are whole blocks, to `out`. `from` may have any alignment.
void decode(DType type, const std::byte* from, std::size_t elements, float* out);

}  // namespace foe
