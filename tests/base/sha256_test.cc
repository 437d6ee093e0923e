#include "base/sha256.h"

#include <string>

#include <gtest/gtest.h>

namespace foe {
namespace {

std::string plainly(std::string_view text) {
  Sha256 digest(/*plainly=*/true);
  digest.add(text);
  return digest.hex();
}

// The examples of FIPS 180-4, and what sha256sum prints.
TEST(Sha256, IsThatOfTheStandard) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameInAnyPiecesAndWithAnyInstructions) {
  std::string text;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(sha256(text), plainly(text)) << text.size() << " bytes";
    text += static_cast<char>(i * 7);
  }
  for (std::size_t piece = 1; piece <= 140; ++piece) {
    Sha256 digest;
    for (std::size_t at = 0; at < text.size(); at += piece) digest.add(std::string_view(text).substr(at, piece));
    EXPECT_EQ(digest.hex(), plainly(text)) << piece;
  }
}

}  // namespace
}  // namespace foe
