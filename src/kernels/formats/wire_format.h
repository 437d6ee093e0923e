// How vectors of floats are written for another rank to read: as they are, or in fewer bytes and rounded.
#pragma once

#include <cstddef>
#include <string_view>

namespace foe {

// kF32: the bits.
// kBF16: each float rounded to the nearest bf16, ties to even. Writing what was read changes nothing any more.
// kInt8: blocks of 64 floats (the last may be shorter), each a scale in f32 and then a byte for each float: the nearest
// multiple of the scale, ties to even, from -127 to 127. The scale is the largest magnitude of the block / 127, but at
// least the smallest normal float. Zeros stay zeros. If a float of a block is not finite, the whole block is read as
// NaNs.
enum class Wire { kF32, kBF16, kInt8 };

const char* to_string(Wire wire);
// "f32", "bf16" or "int8"; anything else is an Error.
Wire parse_wire(std::string_view name);

// Whatever the wire, vectors may be cut before a multiple of so many floats: from there on, what was written is what
// the rest of the vector alone would have become.
inline constexpr std::size_t kWireBlock = 64;

// The bytes of a vector of n floats; of n a multiple of kWireBlock, also where element n of a longer one stands.
std::size_t wire_bytes(Wire wire, std::size_t n);

// Neither side has to be aligned. Every instruction set writes and reads the same bits.
void encode(Wire wire, const float* x, std::size_t n, std::byte* out);
void decode(Wire wire, const std::byte* in, std::size_t n, float* out);

}  // namespace foe
