#pragma once

#include <string>

namespace foe {

// Throws Error where the processor has less than what the kernels are compiled for (x86-64: AVX2 and FMA).
void require_cpu();

// Whether one instruction adds products of 8- or 16-bit integers to a sum, beside AVX-512 (VNNI).
bool dot_products();
// For tests, which run on one thread: without such instructions, until the end of this object.
struct WithoutDotProducts {
  WithoutDotProducts();
  ~WithoutDotProducts();
};

// The instruction set that the kernels use here: "AVX2", "AVX3" (AVX-512), "AVX3 with VNNI", "NEON".
std::string instruction_set();

}  // namespace foe
