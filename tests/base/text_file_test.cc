#include "base/text_file.h"

#include <gtest/gtest.h>

#include "weights/temp_folder.h"

namespace foe {
namespace {

TEST(TextFile, IsReadWhole) {
  const TempFolder folder;
  const std::string bytes("a\r\n\0\xff", 5);
  folder.write("f", bytes);
  EXPECT_EQ(read_text_file(folder / "f", 5), bytes);
  folder.write("empty", "");
  EXPECT_EQ(read_text_file(folder / "empty", 0), "");
}

TEST(TextFile, IsRefusedWithItsPath) {
  const TempFolder folder;
  folder.write("f", "12345");
  EXPECT_EQ(error_of([&] { read_text_file(folder / "f", 4); }), folder / "f" + ": expected at most 4 bytes, got 5");
  EXPECT_EQ(error_of([&] { read_text_file(folder / "none", 4); }),
            folder / "none" + ": expected a file, got: No such file or directory");
  EXPECT_EQ(error_of([&] { read_text_file(folder.path(), 4); }),
            folder.path() + ": expected a file, got something else");
  // Endless, and of no size.
  EXPECT_EQ(error_of([&] { read_text_file("/dev/zero", 4); }), "/dev/zero: expected a file, got something else");
}

}  // namespace
}  // namespace foe
