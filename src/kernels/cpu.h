#pragma once

#include <string>

namespace foe {

// Throws Error where the processor has less than what the kernels are compiled for (x86-64: AVX2 and FMA).
void require_cpu();

// The instruction set that the kernels use here: "AVX2", "AVX3" (AVX-512), "NEON".
std::string instruction_set();

}  // namespace foe
