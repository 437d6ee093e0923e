#pragma once

#include <string>

namespace foe {

// Throws Error where the processor has less than what the kernels are compiled for (x86-64: AVX2 and FMA).
void require_cpu();

// Whether, beside AVX-512, one instruction adds products of bytes to a sum (VNNI) and one looks bytes up in a table of
// 64 (VBMI).
bool dot_products();
// Whether, beside those, there are tiles of integers and of bf16 (AMX, kernels/products/amx.h) and the system lets this
// process use them.
bool tiles();
// For tests, which run on one thread: without such instructions, until the end of this object.
struct WithoutDotProducts {
  WithoutDotProducts();
  ~WithoutDotProducts();
};
struct WithoutTiles {
  WithoutTiles();
  ~WithoutTiles();
};

// The instruction set that the kernels use here: "AVX2", "AVX3" (AVX-512), "AVX3 with VNNI", "AVX3 with VNNI and AMX",
// "NEON".
std::string instruction_set();

}  // namespace foe
