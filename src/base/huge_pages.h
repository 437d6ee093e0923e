// A hint for large arrays that kernels walk through by row and by column: with pages of 4 KB, every row is another
// page.
#pragma once

#include <algorithm>

#include "base/aligned.h"

namespace foe {

// Asks for huge pages behind [data, data + bytes), before it is first written, or read if it is a file's. Nothing
// changes but speed.
void prefer_huge_pages(void* data, std::size_t bytes);

// Buffers that have asked.
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
