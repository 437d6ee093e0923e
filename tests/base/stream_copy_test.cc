#include "base/stream_copy.h"

#include <vector>

#include <gtest/gtest.h>

namespace foe {
namespace {

TEST(StreamCopy, CopiesExactlyTheBytesWhereverTheyBeginAndEnd) {
  std::vector<unsigned char> from(1024);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<unsigned char>(i * 7 + 1);
  for (const std::size_t bytes : {0, 1, 15, 63, 64, 65, 127, 128, 200, 500})
    for (std::size_t to_at = 0; to_at < 70; to_at += 3)
      for (const std::size_t from_at : {0, 1, 33}) {
        std::vector<unsigned char> to(1024, 0), expected = to;
        std::copy_n(from.begin() + from_at, bytes, expected.begin() + to_at);
        stream_copy(to.data() + to_at, from.data() + from_at, bytes);
        ASSERT_EQ(to, expected) << bytes << " bytes from " << from_at << " to " << to_at;
      }
}

TEST(StreamCopy, NothingMayBeNowhere) {
  stream_copy(nullptr, nullptr, 0);
}

}  // namespace
}  // namespace foe
