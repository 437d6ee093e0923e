#include "base/aligned.h"

#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace foe {
namespace {

template <typename T>
bool is_aligned(const AlignedBuffer<T>& buffer) {
  return reinterpret_cast<std::uintptr_t>(buffer.data()) % AlignedBuffer<T>::kAlignment == 0;
}

TEST(AlignedBuffer, StartsAtABoundaryOf64Bytes) {
  std::vector<AlignedBuffer<float>> kept;  // alive together, so that each has a place of its own
  for (std::size_t size = 0; size < 100; ++size) {
    kept.emplace_back(size);
    EXPECT_EQ(kept.back().size(), size);
    EXPECT_EQ(kept.back().span().size(), size);
    EXPECT_TRUE(is_aligned(kept.back())) << size;
  }
  EXPECT_TRUE(is_aligned(AlignedBuffer<std::byte>(1)));
}

TEST(AlignedBuffer, ZeroedIsZero) {
  {
    AlignedBuffer<int> dirty(1000);
    for (int& value : dirty.span()) value = -1;
  }
  const auto zeroed = AlignedBuffer<int>::zeroed(1000);
  for (const int value : zeroed.span()) EXPECT_EQ(value, 0);
}

TEST(AlignedBuffer, MovesWithoutCopying) {
  AlignedBuffer<int> a(3);
  for (int i = 0; i < 3; ++i) a[i] = i;
  const int* place = a.data();
  AlignedBuffer<int> b = std::move(a);
  EXPECT_EQ(b.data(), place);
  EXPECT_EQ(b.size(), 3u);
  EXPECT_EQ(std::as_const(b)[2], 2);
  b = AlignedBuffer<int>();
  EXPECT_EQ(b.size(), 0u);
  EXPECT_EQ(b.data(), nullptr);
}

}  // namespace
}  // namespace foe
