#include "weights/tensor_writer.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "temp_folder.h"
#include "weights/atomic_file.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

const std::vector<float> kWritten = {1, 2, 3, 4, 5, 6};

TEST(TensorWriter, TheSameTensorsGiveTheSameBytesInAnyOrder) {
  const TempFolder folder;
  const auto a = float_source("a", DType::kBF16, {3}, {kWritten.data(), 3});
  const auto b = float_source("b", DType::kF32, {6}, kWritten);
  const auto c = byte_source("c", "U8", {3}, std::as_bytes(std::span(kWritten)).first(3));
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
  write_tensor_file(folder / "f", {float_source(name, DType::kF32, {6}, kWritten)}, {});
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
  EXPECT_DEATH(float_source("w", DType::kF32, {5}, kWritten), "6 values for shape \\[5\\]");
  EXPECT_DEATH(byte_source("w", "U9", {5}, {}), "U9");
  EXPECT_DEATH(byte_source("w", "U8", {5}, {}), "0 bytes for shape \\[5\\]");
  const auto w = float_source("w", DType::kF32, {6}, kWritten);
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
              AllOf(StartsWith(folder / "taken"), HasSubstr("expected to open it"), HasSubstr("directory")));
  if (std::filesystem::exists("/dev/full")) {
    std::filesystem::create_symlink("/dev/full", folder / "full");
    EXPECT_THAT(error_of([&] { write_text_file(folder / "full", "x"); }),
                AllOf(StartsWith(folder / "full"), HasSubstr("expected to write it"), HasSubstr("No space left")));
    EXPECT_TRUE(std::filesystem::is_symlink(folder / "full"));
  }
}

TEST(AtomicFile, WritesToAPipeAsItIs) {
  const TempFolder folder;
  const std::string pipe = folder / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  write_text_file(pipe, "some text");
  char got[32];
  EXPECT_EQ(read(reader, got, sizeof got), 9);
  close(reader);
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

TEST(AtomicFile, ReplacesWhatALinkNamesAndKeepsTheLink) {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "elsewhere");
  folder.write("elsewhere/f", "old");
  std::filesystem::create_symlink("elsewhere/f", folder / "link");
  std::filesystem::create_symlink("link", folder / "link_to_link");
  write_text_file(folder / "link_to_link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link_to_link"));
  EXPECT_EQ(folder.read("elsewhere/f"), "new");
  std::filesystem::create_symlink("elsewhere/g", folder / "to_nothing_yet");
  write_text_file(folder / "to_nothing_yet", "made");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "to_nothing_yet"));
  EXPECT_EQ(folder.read("elsewhere/g"), "made");
}

// As root, a link that someone else left at the name of the .tmp would lead to any file of the system.
TEST(AtomicFile, WritesThroughNoLinkAtTheTemporaryName) {
  const TempFolder folder;
  folder.write("precious", "kept");
  std::filesystem::create_symlink("precious", folder / "f.tmp");
  write_text_file(folder / "f", "new");
  EXPECT_EQ(folder.read("precious"), "kept");
  EXPECT_EQ(folder.read("f"), "new");
  EXPECT_FALSE(std::filesystem::is_symlink(folder / "f"));
}

TEST(AtomicFile, KeepsTheMode) {
  using std::filesystem::perms;
  const TempFolder folder;
  folder.write("f", "old");
  std::filesystem::permissions(folder / "f", perms::owner_read | perms::owner_write);
  write_text_file(folder / "f", "new");
  EXPECT_EQ(std::filesystem::status(folder / "f").permissions(), perms::owner_read | perms::owner_write);
}

// As with --output /dev/stdout: what else goes there, before and behind, is not lost.
TEST(AtomicFile, AddsToItsOwnStandardOutput) {
  const TempFolder folder;
  std::fflush(stdout);
  const int before = dup(STDOUT_FILENO), file = open((folder / "out").c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_EQ(dup2(file, STDOUT_FILENO), STDOUT_FILENO);
  std::fputs("before ", stdout);
  const std::string error = error_of([] { write_text_file("/dev/stdout", "text"); });
  std::fputs(" behind", stdout);
  std::fflush(stdout);
  dup2(before, STDOUT_FILENO);
  close(before);
  close(file);
  EXPECT_EQ(error, "no error");
  EXPECT_EQ(folder.read("out"), "before text behind");
}

}  // namespace
}  // namespace foe
