// Arrays for SIMD, whose size is fixed when they are made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace foe {

// Owns `size` elements of a trivially copyable type at a 64-byte boundary. The constructor leaves them uninitialised;
// zeroed() sets them to zero. Move-only. Throws std::bad_alloc if there is no memory.
template <typename T>
class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = 64;

  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t size)
      : data_(static_cast<T*>(::operator new[](size * sizeof(T), std::align_val_t{kAlignment}))), size_(size) {}
  static AlignedBuffer zeroed(std::size_t size) {
    static_assert(std::is_arithmetic_v<T> || std::is_same_v<T, std::byte>);
    AlignedBuffer buffer(size);
    if (size > 0) std::memset(buffer.data(), 0, size * sizeof(T));
    return buffer;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data_.get(), size_}; }
  std::span<const T> span() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete[](p, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace foe
