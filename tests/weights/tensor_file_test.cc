#include "weights/tensor_file.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "file_memory.h"
#include "temp_folder.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  read_floats(tensor, 0, values);
  return values;
}

std::vector<float> iota(std::size_t size) {
  std::vector<float> values(size);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

TEST(TensorFile, RefusesWhatIsNoFile) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { TensorFile(folder / "none"); }),
              AllOf(HasSubstr(folder / "none"), HasSubstr("expected a readable file"), HasSubstr("No such file")));
  EXPECT_THAT(error_of([&] { TensorFile{folder.path()}; }), HasSubstr("expected a file, got something else"));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { TensorFile(folder / "pipe"); }), HasSubstr("expected a file, got something else"));
  folder.write("empty", "");
  EXPECT_THAT(error_of([&] { TensorFile(folder / "empty"); }),
              AllOf(HasSubstr(folder / "empty"), HasSubstr("at least 8 bytes, got 0")));
  folder.write("bad", safetensors_bytes("{"));
  EXPECT_THAT(error_of([&] { TensorFile(folder / "bad"); }), HasSubstr("expected a JSON header"));
}

TEST(TensorFile, ReadsWhatTheWriterWrote) {
  const TempFolder folder;
  const std::vector<float> f32 = {0.0f, -0.0f, 1.5f, std::numeric_limits<float>::max(), 1e-45f, -INFINITY};
  const std::vector<float> many = iota(10000);  // more than one piece of the writer's conversion
  const std::vector<std::uint64_t> counts = {7, ~0ull};
  write_tensor_file(
      folder / "a.safetensors",
      {float_source("many", DType::kBF16, {100, 100}, many), float_source("f", DType::kF32, {2, 3}, f32),
       float_source("none", DType::kF32, {0, 4}, {}), float_source("scalar", DType::kF32, {}, {&f32[2], 1}),
       byte_source("counts", "U64", {2}, std::as_bytes(std::span(counts)))},
      {{"format", "pt"}, {"step", "\"12\"\n"}});
  const TensorFile file(folder / "a.safetensors");
  EXPECT_EQ(file.path(), folder / "a.safetensors");
  EXPECT_EQ(file.metadata().at("step"), "\"12\"\n");
  EXPECT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_EQ(file.find("zzz"), nullptr);

  const Tensor f = file.tensor(*file.find("f"));
  EXPECT_EQ(f.dtype, DType::kF32);
  EXPECT_THAT(f.shape, ElementsAre(2, 3));
  ASSERT_EQ(f.size(), 6);
  EXPECT_EQ(std::memcmp(f.bytes.data(), f32.data(), f.bytes.size()), 0);
  const Tensor bf16 = file.tensor(*file.find("many"));
  EXPECT_EQ(bf16.dtype, DType::kBF16);
  const std::vector<float> read = floats_of(bf16);
  for (std::size_t i = 0; i < many.size(); ++i) ASSERT_EQ(read[i], to_float(to_bf16(many[i]))) << i;
  EXPECT_EQ(floats_of(file.tensor(*file.find("scalar"))), std::vector<float>{1.5f});
  EXPECT_THAT(file.tensor(*file.find("none")).shape, ElementsAre(0, 4));
  EXPECT_EQ(std::memcmp(file.bytes(*file.find("counts")).data(), counts.data(), 16), 0);
  EXPECT_THAT(error_of([&] { file.tensor(*file.find("counts")); }),
              AllOf(HasSubstr("counts: expected weights of type F32, BF16 or F16"), HasSubstr("got U64")));
}

TEST(TensorFile, DropsPagesAndReadsThemAgain) {
  const TempFolder folder;
  const std::vector<float> values = iota(4 << 20);
  write_tensor_file(folder / "a.safetensors", {float_source("a", DType::kF32, {4 << 20}, values)}, {});
  const TensorFile file(folder / "a.safetensors");
  const Tensor tensor = file.tensor(*file.find("a"));
  EXPECT_EQ(floats_of(tensor), values);
  const std::size_t before = file_memory();
  file.drop_pages();
  EXPECT_LE(file_memory() + (12 << 20), before);
  EXPECT_EQ(floats_of(tensor), values);
}

TEST(TensorFile, Bf16RoundsToNearestEvenAndKeepsSpecials) {
  // bf16 has 8 bits of precision: 257 is half way between 256 and 258, 259 between 258 and 260.
  const std::vector<float> values = {257.0f, 259.0f, 257.01f, NAN, INFINITY, -0.0f, 3.4e38f};
  const TempFolder folder;
  write_tensor_file(folder / "f", {float_source("w", DType::kBF16, {7}, values)});
  const TensorFile file(folder / "f");
  const std::vector<float> read = floats_of(file.tensor(*file.find("w")));
  EXPECT_EQ(read[0], 256.0f);
  EXPECT_EQ(read[1], 260.0f);
  EXPECT_EQ(read[2], 258.0f);
  EXPECT_TRUE(std::isnan(read[3]));
  EXPECT_EQ(read[4], INFINITY);
  EXPECT_TRUE(read[5] == 0.0f && std::signbit(read[5]));
  EXPECT_EQ(read[6], INFINITY);  // nearer to 2^128 than to the largest bf16, 2^128 - 2^120
}

TEST(TensorFile, ReadsTensorsAtAnyByte) {
  const TempFolder folder;
  // Three tensors: 1 byte, then f32 and bf16 at odd places, after a header of odd length.
  std::string header =
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]},"
      "\"c\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[9,13]}}";
  if (header.size() % 2 != 0) header += ' ';  // then b and c begin at odd addresses
  const std::vector<float> b = {1.25f, -3.0f};
  const std::vector<std::uint16_t> c = {to_bf16(0.5f).bits, to_bf16(-2.0f).bits};
  std::string bytes = safetensors_bytes(header, 13);
  std::memcpy(bytes.data() + 8 + header.size() + 1, b.data(), 8);
  std::memcpy(bytes.data() + 8 + header.size() + 9, c.data(), 4);
  folder.write("odd", bytes);
  const TensorFile file(folder / "odd");
  ASSERT_EQ(reinterpret_cast<std::uintptr_t>(file.tensor(*file.find("b")).bytes.data()) % 2, 1u);
  EXPECT_EQ(floats_of(file.tensor(*file.find("b"))), b);
  EXPECT_THAT(floats_of(file.tensor(*file.find("c"))), ElementsAre(0.5f, -2.0f));
}

TEST(TensorFile, SlicesAndRowsAreViews) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TempFolder folder;
    const std::vector<float> values = iota(24);  // exact in bf16
    write_tensor_file(folder / "f", {float_source("w", dtype, {2, 4, 3}, values)});
    const TensorFile file(folder / "f");
    const Tensor w = file.tensor(*file.find("w"));
    const Tensor second = slice(w, 1);
    EXPECT_THAT(second.shape, ElementsAre(4, 3));
    EXPECT_THAT(floats_of(second), ElementsAre(12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23));
    const Tensor part = rows(second, 1, 3);
    EXPECT_THAT(part.shape, ElementsAre(2, 3));
    EXPECT_THAT(floats_of(part), ElementsAre(15, 16, 17, 18, 19, 20));
    EXPECT_GE(part.bytes.data(), w.bytes.data());  // of the same memory
    EXPECT_LE(part.bytes.data() + part.bytes.size(), w.bytes.data() + w.bytes.size());
    EXPECT_EQ(rows(second, 4, 4).size(), 0);
    std::vector<float> middle(2);
    read_floats(w, 11, middle);
    EXPECT_THAT(middle, ElementsAre(11, 12));
  }
}

TEST(TensorFileDeathTest, ViewsOutsideTheTensorAreBugs) {
  const TempFolder folder;
  const std::vector<float> values = iota(6);
  write_tensor_file(folder / "f", {float_source("w", DType::kF32, {2, 3}, values)});
  const TensorFile file(folder / "f");
  const Tensor w = file.tensor(*file.find("w"));
  std::vector<float> out(2);
  EXPECT_DEATH(slice(w, 2), "broken invariant");
  EXPECT_DEATH(rows(w, -1, 1), "broken invariant");
  EXPECT_DEATH(read_floats(w, 5, out), "broken invariant");
  EXPECT_DEATH(read_floats(w, -1, out), "broken invariant");
}

TEST(TensorFile, MovesKeepViewsValid) {
  const TempFolder folder;
  const std::vector<float> values = iota(6);
  write_tensor_file(folder / "f", {float_source("w", DType::kF32, {6}, values)});
  TensorFile file(folder / "f");
  const Tensor w = file.tensor(*file.find("w"));
  TensorFile moved = std::move(file);
  EXPECT_EQ(floats_of(w), values);
  write_tensor_file(folder / "f", {float_source("w", DType::kF32, {1}, {values.data(), 1})});
  EXPECT_EQ(floats_of(w), values);  // a file that is replaced stays what it was for those who have it open
  moved = TensorFile(folder / "f");
  EXPECT_EQ(moved.tensor(*moved.find("w")).size(), 1);
}

}  // namespace
}  // namespace foe
