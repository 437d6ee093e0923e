#include "weights/tensor_writer.h"

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temp_folder.h"
#include "weights/atomic_file.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

const std::vector<float> kValues = {1, 2, 3, 4, 5, 6};

TEST(TensorWriter, TheSameTensorsGiveTheSameBytesInAnyOrder) {
  const TempFolder folder;
  const auto a = float_source("a", DType::kBF16, {3}, {kValues.data(), 3});
  const auto b = float_source("b", DType::kF32, {6}, kValues);
  const auto c = byte_source("c", "U8", {3}, std::as_bytes(std::span(kValues)).first(3));
  write_tensor_file(folder / "abc", {a, b, c});
  write_tensor_file(folder / "cba", {c, b, a});
  EXPECT_EQ(folder.read("abc"), folder.read("cba"));
  const TensorFile file(folder / "abc");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  // Falling element size keeps every tensor aligned; the data begins at a cache line.
  EXPECT_EQ(file.find("b")->begin % 64, 0u);
  EXPECT_EQ(file.find("a")->begin, file.find("b")->end);
  EXPECT_EQ(file.find("c")->begin, file.find("a")->end);
}

// More than one piece, and a short one at the end.
TEST(TensorWriter, WritesValuesAsTheyAreMade) {
  const TempFolder folder;
  std::vector<float> values(200'001);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 7;
  const auto shape = std::vector<std::int64_t>{static_cast<std::int64_t>(values.size())};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    write_tensor_file(folder / "whole", {float_source("w", type, shape, values)});
    write_tensor_file(folder / "made", {generated_source("w", type, shape, [](std::size_t first, std::span<float> out) {
                        for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(first + i) / 7;
                      })});
    EXPECT_EQ(folder.read("made"), folder.read("whole"));
  }
}

TEST(TensorWriter, EscapesNames) {
  const TempFolder folder;
  const std::string name = "quote \" slash \\ newline \n ü";
  write_tensor_file(folder / "f", {float_source(name, DType::kF32, {6}, kValues)}, {});
  const TensorFile file(folder / "f");
  EXPECT_NE(file.find(name), nullptr);
  EXPECT_TRUE(file.metadata().empty());
}

TEST(TensorWriter, StreamsPiecesOfAnySize) {
  const TempFolder folder;
  constexpr std::size_t kCount = 700'001;  // more than the file's buffer, in pieces that do not divide it
  TensorSource source{"w", find_stored_type("U8"), {kCount * 3}, {}};
  source.write = [](const TensorSource::Sink& sink) {
    for (std::size_t i = 0; i < kCount; ++i) {
      const std::uint8_t piece[3] = {static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(i >> 8),
                                     static_cast<std::uint8_t>(i >> 16)};
      sink(std::as_bytes(std::span(piece)));
    }
  };
  write_tensor_file(folder / "f", {source});
  const TensorFile file(folder / "f");
  const auto bytes = file.bytes(*file.find("w"));
  for (std::size_t i = 0; i < kCount; ++i) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + 3 * i, 3);
    ASSERT_EQ(value, i);
  }
}

TEST(TensorWriterDeathTest, WrongSizesAndNamesAreBugs) {
  const TempFolder folder;
  EXPECT_DEATH(float_source("w", DType::kF32, {5}, kValues), "6 values for shape \\[5\\]");
  EXPECT_DEATH(byte_source("w", "U9", {5}, {}), "U9");
  EXPECT_DEATH(byte_source("w", "U8", {5}, {}), "0 bytes for shape \\[5\\]");
  const auto w = float_source("w", DType::kF32, {6}, kValues);
  EXPECT_DEATH(write_tensor_file(folder / "f", {w, w}), "w twice");
  TensorSource silent{"w", find_stored_type("U8"), {5}, [](const TensorSource::Sink&) {}};
  EXPECT_DEATH(write_tensor_file(folder / "f", {silent}), "0 bytes for shape \\[5\\]");
}

TEST(AtomicFile, LeavesTheOldFileUntilCommitAndNoTemporary) {
  const TempFolder folder;
  write_text_file(folder / "f", "old");
  {
    AtomicFile file(folder / "f");
    file.write("new");
    EXPECT_EQ(folder.read("f"), "old");
  }
  EXPECT_EQ(folder.read("f"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder / "f.tmp"));
  folder.write("f.tmp", "left by a process that was killed");
  write_text_file(folder / "f", "new");
  EXPECT_EQ(folder.read("f"), "new");
  EXPECT_FALSE(std::filesystem::exists(folder / "f.tmp"));
}

TEST(AtomicFile, SaysWhyTheSystemRefuses) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { AtomicFile(folder / "none/f"); }),
              AllOf(StartsWith(folder / "none/f.tmp"), HasSubstr("expected to create it"), HasSubstr("No such file")));
  std::filesystem::create_directory(folder / "taken");
  EXPECT_THAT(error_of([&] { write_text_file(folder / "taken", "x"); }),
              AllOf(HasSubstr("expected to rename it"), HasSubstr("directory")));
  EXPECT_FALSE(std::filesystem::exists(folder / "taken.tmp"));
  if (std::filesystem::exists("/dev/full")) {
    std::filesystem::create_symlink("/dev/full", folder / "full.tmp");
    EXPECT_THAT(error_of([&] { write_text_file(folder / "full", "x"); }),
                AllOf(HasSubstr("expected to write it"), HasSubstr("No space left")));
  }
}

}  // namespace
}  // namespace foe
