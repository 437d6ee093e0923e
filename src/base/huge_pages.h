// Huge pages for large arrays that kernels read by row and by column: with pages of 4 KB, every row would be on another
// page.
#pragma once

#include <algorithm>

#include "base/aligned.h"

namespace foe {

// Asks the system for huge pages behind [data, data + bytes). To be called before the memory is first written or, if it
// is a mapped file, read. This is a hint, which changes nothing but speed.
void prefer_huge_pages(void* data, std::size_t bytes);

// Return a buffer for which huge pages have been asked.
template <typename T>
AlignedBuffer<T> large_buffer(std::size_t size) {
  AlignedBuffer<T> buffer(size);
  prefer_huge_pages(buffer.data(), size * sizeof(T));
  return buffer;
}

template <typename T>
AlignedBuffer<T> large_zeroed_buffer(std::size_t size) {
  AlignedBuffer<T> buffer = large_buffer<T>(size);
  std::fill_n(buffer.data(), size, T{});
  return buffer;
}

}  // namespace foe
