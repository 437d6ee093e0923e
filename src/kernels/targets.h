// Chooses the instruction sets that kernels are compiled for. To be included before any Highway header. They are those
// that tests have run on: AVX2 (the baseline, by compiler flags), AVX-512 (Highway's AVX3) and its dot products
// (kernels/cpu.h), and, in an emulator, NEON; not SVE. Kernels treat 16 floats as one unit whatever the width of a
// vector (vec16-inl.h), so every set computes the same bits. With the option FOE_AVX512=OFF, and in builds for
// sanitizers on a machine that cannot run it, AVX-512 is not compiled (FOE_WITHOUT_AVX512).
#pragma once

#if defined(__x86_64__) && defined(FOE_WITHOUT_AVX512)
#define HWY_DISABLED_TARGETS (~HWY_AVX2)
#elif defined(__x86_64__)
#define HWY_DISABLED_TARGETS (~(HWY_AVX2 | HWY_AVX3))
#elif defined(__aarch64__)
#define HWY_DISABLED_TARGETS (~HWY_NEON)
#endif
