#pragma once

#include <string>

namespace foe {

// Throws Error if the processor lacks the instructions that the kernels are compiled for (x86-64: AVX2 and FMA).
void require_cpu();

// Whether the processor has AVX-512 with an instruction that adds products of bytes to a sum (VNNI) and one that looks
// up bytes in a table of 64 (VBMI).
bool dot_products();
// Whether, in addition, the processor has tiles of integers and of bf16 (AMX, kernels/products/amx.h), and the system
// lets this process use them.
bool tiles();
// For tests, which run on one thread: during its life such instructions are not used.
struct WithoutDotProducts {
  WithoutDotProducts();
  ~WithoutDotProducts();
};
struct WithoutTiles {
  WithoutTiles();
  ~WithoutTiles();
};

// Returns the instruction set that the kernels use here: "AVX2", "AVX3" (AVX-512), "AVX3 with VNNI", "AVX3 with VNNI
// and AMX" or "NEON".
std::string instruction_set();

}  // namespace foe
