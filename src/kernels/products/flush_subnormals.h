// Makes subnormal numbers zeros, as tile registers of bf16 do (kernels/products/amx.h,
// kernels/products/bf16_dot-inl.h).
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace foe {

// While it lives, subnormal inputs and results of this thread's floating-point instructions count as zeros of the same
// sign. It must be made outside of the function that computes, which must not be inlined: compilers assume that
// arithmetic does not depend on the mode, and may move it.
//
// x86-64 tests a result after rounding, and ARM before: a result in the last half unit below 2^-126 becomes 2^-126 on
// x86-64 and zero on ARM.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(mode()) { set_mode(before_ | kFlush); }
  ~FlushSubnormals() { set_mode(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Mode = unsigned;
  static constexpr Mode kFlush = 0x8040;  // MXCSR: results (FTZ) and inputs (DAZ)
  static Mode mode() {
    return _mm_getcsr();
  }
  static void set_mode(Mode mode) {
    _mm_setcsr(mode);
  }
#elif defined(__aarch64__)
  using Mode = std::uint64_t;
  static constexpr Mode kFlush = 1u << 24;  // FPCR: FZ, which is both
  static Mode mode() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode) : : "memory");
    return mode;
  }
  static void set_mode(Mode mode) {
    asm volatile("msr fpcr, %0" : : "r"(mode) : "memory");
  }
#else
#error "How does this processor flush subnormal numbers?"
#endif

  Mode before_;
};

}  // namespace foe
