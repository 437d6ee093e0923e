// How vectors of floats are encoded for another rank: as they are, or rounded to fewer bytes.
#pragma once

#include <cstddef>
#include <string_view>

namespace foe {

// kF32: the floats themselves.
// kBF16: each float is rounded to the nearest bf16, ties to even. Encoding what was decoded changes nothing.
// kInt8: blocks of 64 floats (the last may be shorter), each a scale in f32 and then a byte for each float, from -127
// to 127: the nearest multiple of the scale, ties to even. The scale is the largest magnitude of the block / 127, but
// at least the smallest normal float. Zeros stay zeros. If a float of a block is not finite, the whole block is decoded
// as NaNs.
enum class Wire { kF32, kBF16, kInt8 };

const char* to_string(Wire wire);
// Reads "f32", "bf16" or "int8". Throws Error for anything else.
Wire parse_wire(std::string_view name);

// With every wire, an encoded vector may be cut at multiples of so many floats: the rest of it is what the rest of the
// vector would be encoded to.
inline constexpr std::size_t kWireBlock = 64;

// Returns the bytes of an encoded vector of n floats. If n is a multiple of kWireBlock, this is also the offset of
// element n in a longer vector.
std::size_t wire_bytes(Wire wire, std::size_t n);

// Encode and decode vectors. The encoded bytes need not be aligned. Every instruction set gives the same bits.
void encode(Wire wire, const float* x, std::size_t n, std::byte* out);
void decode(Wire wire, const std::byte* in, std::size_t n, float* out);

}  // namespace foe
