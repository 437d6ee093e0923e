// The instruction sets that ship are those that a machine of ours has run: AVX2 (the baseline, by compiler flags),
// AVX-512 (Highway's AVX3), where a processor has them with its dot products (kernels/cpu.h), and, in an emulator,
// NEON; not SVE. Include this before any Highway header. Kernels treat 16 floats as one unit whatever the vector width
// (vec16-inl.h), so every set computes the same bits.
#pragma once

#if defined(__x86_64__)
#define HWY_DISABLED_TARGETS (~(HWY_AVX2 | HWY_AVX3))
#elif defined(__aarch64__)
#define HWY_DISABLED_TARGETS (~HWY_NEON)
#endif
