#include "text/base64.h"

#include <gtest/gtest.h>

namespace foe {
namespace {

// RFC 4648, section 10.
TEST(Base64, HasTheVectorsOfTheRfc) {
  const std::pair<const char*, const char*> vectors[] = {{"", ""},
                                                         {"Zg==", "f"},
                                                         {"Zm8=", "fo"},
                                                         {"Zm9v", "foo"},
                                                         {"Zm9vYg==", "foob"},
                                                         {"Zm9vYmE=", "fooba"},
                                                         {"Zm9vYmFy", "foobar"}};
  for (const auto& [text, bytes] : vectors) {
    EXPECT_EQ(decode_base64(text), bytes);
    EXPECT_EQ(encode_base64(bytes), text);
  }
  EXPECT_EQ(decode_base64("AP/+"), std::string("\0\xff\xfe", 3));
  EXPECT_EQ(encode_base64(std::string("\0\xff\xfe", 3)), "AP/+");
}

TEST(Base64, RefusesAnythingElse) {
  for (const char* text :
       {"Z", "Zg", "Zg=", "Zg= =", "Z===", "====", "Zh==", "Zm9=", "Zm 9", "Zm9-", "=Zm9", "Zg==Zg=="})
    EXPECT_EQ(decode_base64(text), std::nullopt) << text;
}

}  // namespace
}  // namespace foe
