#include "base/digest.h"

#include <string>

#include <gtest/gtest.h>

namespace foe {
namespace {

std::uint64_t digest_of(std::string_view text) {
  Digest digest;
  digest.add(text);
  return digest.value();
}

// What other implementations of XXH64 give.
TEST(Digest, IsXxh64) {
  EXPECT_EQ(digest_of(""), 0xef46db3751d8e999u);
  EXPECT_EQ(digest_of("a"), 0xd24ec4f1a98c6e5bu);
  EXPECT_EQ(digest_of("abc"), 0x44bc2cf5ad770999u);
  EXPECT_EQ(digest_of("Nobody inspects the spammish repetition"), 0xfbcea83c8a378bf1u);  // more than a stripe
}

TEST(Digest, DoesNotDependOnThePieces) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>(i * 7);
  for (std::size_t piece = 1; piece <= 70; ++piece) {
    Digest digest;
    for (std::size_t at = 0; at < text.size(); at += piece) digest.add(std::string_view(text).substr(at, piece));
    EXPECT_EQ(digest.value(), digest_of(text)) << piece;
  }
}

TEST(Digest, EveryBitCounts) {
  const std::string text(100, 'x');
  for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string other = text;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ 1 << bit % 8);
    EXPECT_NE(digest_of(other), digest_of(text)) << bit;
  }
}

}  // namespace
}  // namespace foe
