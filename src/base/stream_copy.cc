#include "base/stream_copy.h"

#include <algorithm>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace foe {

void stream_copy(void* to, const void* from, std::size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
#if defined(__SSE2__)
  constexpr std::size_t kLine = 64;
  const std::size_t head = std::min(bytes, (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine);
  std::copy_n(in, head, out);
  std::size_t at = head;
  for (; at + kLine <= bytes; at += kLine)  // whole cache lines, as parts of a line would have to be merged in memory
    for (std::size_t i = at; i < at + kLine; i += sizeof(__m128i))
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i)));
  std::copy_n(in + at, bytes - at, out + at);
  _mm_sfence();
#else
  std::copy_n(in, bytes, out);
#endif
}

}  // namespace foe
