#include "weights/gguf/gguf_header.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "weights/gguf_bytes.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

GgufHeader parse_gguf(const std::string& bytes) {
  return parse_gguf_header(std::as_bytes(std::span(bytes)), "m.gguf");
}

void expect_refused(const std::string& bytes, const std::string& message) {
  EXPECT_THAT([&] { parse_gguf(bytes); },
              ThrowsMessage<Error>(testing::AllOf(StartsWith("m.gguf: "), HasSubstr(message))));
}

TEST(GgufHeader, ReadsKeysAndTensors) {
  const std::string bytes = GgufBytes()
                                .text("general.architecture", "llama")
                                .u32("a.count", 7)
                                .f32("a.number", 0.5f)
                                .flag("a.flag", true)
                                .texts("a.texts", {"x", "", "yz"})
                                .i32s("a.numbers", {-3, 4})
                                .add("a.u64", GgufBytes::Type::kU64, GgufBytes::raw(std::uint64_t{1} << 40))
                                .add("a.i8", GgufBytes::Type::kI8, "\xff")
                                .tensor("z", {32, 3}, 8, 0)  // Q8_0: three rows of 34 bytes
                                .tensor("b", {2}, 0, 128)
                                .file(128 + 8);
  const GgufHeader header = parse_gguf(bytes);
  const GgufMetadata& keys = header.metadata;
  EXPECT_EQ(keys.text("general.architecture"), "llama");
  EXPECT_EQ(keys.integer("a.count"), 7);
  EXPECT_EQ(keys.integer("a.u64"), std::int64_t{1} << 40);
  EXPECT_EQ(keys.integer("a.i8"), -1);
  EXPECT_EQ(keys.number("a.count"), 7);
  EXPECT_EQ(keys.number("a.number"), 0.5);
  EXPECT_EQ(keys.flag("a.flag"), true);
  EXPECT_THAT(*keys.texts("a.texts"), ElementsAre("x", "", "yz"));
  EXPECT_THAT(*keys.numbers("a.numbers"), ElementsAre(-3, 4));
  EXPECT_EQ(keys.count("a.texts"), 3u);
  EXPECT_FALSE(keys.integer("a.none") || keys.number("a.none") || keys.flag("a.none") || keys.text("a.none") ||
               keys.texts("a.none") || keys.numbers("a.none") || keys.has("a.none"));

  ASSERT_EQ(header.tensors.size(), 2u);
  const TensorInfo &b = header.tensors[0], &z = header.tensors[1];
  const std::size_t data = bytes.size() - 136;
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.type->name, "F32");
  EXPECT_THAT(b.shape, ElementsAre(2));
  EXPECT_EQ(b.begin, data + 128);
  EXPECT_EQ(b.end, data + 136);
  EXPECT_EQ(z.type->dtype, DType::kQ8_0);
  EXPECT_THAT(z.shape, ElementsAre(3, 32));
  EXPECT_EQ(z.begin, data);
  EXPECT_EQ(z.end, data + 102);
}

TEST(GgufHeader, RefusesValuesOfOtherTypes) {
  const std::string bytes = GgufBytes()
                                .text("text", "x")
                                .u32("u32", 7)
                                .f32("f32", 1.5f)
                                .i32s("array", {1})
                                .add("huge", GgufBytes::Type::kU64, GgufBytes::raw(~std::uint64_t{0}))
                                .file();
  const GgufHeader header = parse_gguf(bytes);
  const GgufMetadata& keys = header.metadata;
  const auto refused = [](auto read, const std::string& message) {
    EXPECT_THAT(read, ThrowsMessage<Error>("m.gguf: " + message));
  };
  refused([&] { keys.integer("text"); }, "text: expected an integer, got string");
  refused([&] { keys.integer("f32"); }, "f32: expected an integer, got 1.5 (f32)");
  refused([&] { keys.integer("huge"); }, "huge: expected an integer, got 1.8446744073709552e+19 (u64)");
  refused([&] { keys.integer("array"); }, "array: expected an integer, got an array of i32");
  refused([&] { keys.number("text"); }, "text: expected a number, got string");
  refused([&] { keys.flag("u32"); }, "u32: expected true or false, got 7 (u32)");
  refused([&] { keys.text("u32"); }, "u32: expected a string, got 7 (u32)");
  refused([&] { keys.texts("array"); }, "array: expected an array of strings, got an array of i32");
  refused([&] { keys.numbers("u32"); }, "u32: expected an array of numbers, got 7 (u32)");
}

TEST(GgufHeader, ReadsAnotherAlignment) {
  const auto of = [](std::uint32_t alignment, std::uint64_t offset) {
    return GgufBytes().u32("general.alignment", alignment).tensor("t", {1}, 0, offset).file(256, alignment);
  };
  EXPECT_NO_THROW(parse_gguf(of(8, 8)));
  expect_refused(of(64, 32), "t: expected an offset that is a multiple of general.alignment = 64, got 32");
  expect_refused(GgufBytes().u32("general.alignment", 24).file(), "general.alignment: expected a power of two");
  expect_refused(GgufBytes().u32("general.alignment", 0).file(), "general.alignment: expected a power of two");
  expect_refused(GgufBytes().text("general.alignment", "x").file(), "general.alignment: expected an integer");
}

TEST(GgufHeader, RefusesFilesThatEndAnywhere) {
  const std::string bytes =
      GgufBytes().text("k", "value").texts("l", {"a", "b"}).u32("n", 1).tensor("t", {8, 2}, 0, 0).file(64);
  ASSERT_NO_THROW(parse_gguf(bytes));
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THAT([&] { parse_gguf(bytes.substr(0, size)); }, ThrowsMessage<Error>(StartsWith("m.gguf: "))) << size;
}

TEST(GgufHeader, RefusesOtherFilesAndVersions) {
  std::string bytes = GgufBytes().file();
  expect_refused("GGML" + bytes.substr(4), "expected a file that begins with \"GGUF\"");
  for (const auto& [version, message] : {std::pair{1u, "got 1: convert the model again"},
                                         {4u, "expected GGUF version 2 or 3, got 4"},
                                         {0x03000000u, "got a file of a big-endian machine"}})
    expect_refused("GGUF" + GgufBytes::raw(version) + bytes.substr(8), message);
  EXPECT_NO_THROW(parse_gguf("GGUF" + GgufBytes::raw(2u) + bytes.substr(8)));
}

TEST(GgufHeader, RefusesCountsThatDoNotFit) {
  const auto raw = [](std::uint64_t n) { return GgufBytes::raw(n); };
  const std::string beginning = "GGUF" + GgufBytes::raw(3u);
  expect_refused(beginning + raw(1) + raw(0), "expected a number of tensors that fits into the file's 8 further bytes");
  expect_refused(beginning + raw(~std::uint64_t{0}) + raw(0), "a number of tensors");
  expect_refused(beginning + raw(0) + raw(std::uint64_t{1} << 62), "a number of keys");
  const auto with = [](GgufBytes::Type type, const std::string& value) {
    return GgufBytes().add("k", type, value).file();
  };
  expect_refused(with(GgufBytes::Type::kString, raw(std::uint64_t{1} << 40)), "expected a string of");
  for (const std::uint64_t count : {std::uint64_t{1000}, std::uint64_t{1} << 61, ~std::uint64_t{0}})
    for (const auto element : {GgufBytes::Type::kU8, GgufBytes::Type::kF64, GgufBytes::Type::kString})
      expect_refused(with(GgufBytes::Type::kArray, GgufBytes::raw(element) + raw(count)), "the length of an array");
}

TEST(GgufHeader, RefusesBadKeys) {
  expect_refused(GgufBytes().u32("k", 1).u32("k", 1).file(), "k: expected a key once, got it twice");
  expect_refused(GgufBytes().u32("", 1).file(),
                 "expected the name of a key of 1 to 65535 printable characters, got ''");
  expect_refused(GgufBytes().u32("a\nb", 1).file(), "got 'a?b'");
  expect_refused(GgufBytes().u32(std::string(65536, 'k'), 1).file(), "printable characters");
  expect_refused(GgufBytes().add("k", static_cast<GgufBytes::Type>(13), "").file(),
                 "k: expected a type of values from 0 to 12, got 13");
  const std::string nested = GgufBytes::raw(GgufBytes::Type::kArray) + GgufBytes::raw(std::uint64_t{0});
  expect_refused(GgufBytes().add("k", GgufBytes::Type::kArray, nested).file(), "k: expected no array of arrays");
}

TEST(GgufHeader, RefusesBadTensors) {
  const auto one = [](const std::vector<std::uint64_t>& dimensions, std::uint32_t type, std::uint64_t offset) {
    return GgufBytes().tensor("t", dimensions, type, offset).file(64);
  };
  expect_refused(one({}, 0, 0), "t: expected 1 to 4 dimensions, got 0");
  expect_refused(one({1, 1, 1, 1, 1}, 0, 0), "t: expected 1 to 4 dimensions, got 5");
  expect_refused(one({4, 0}, 0, 0), "t: expected dimensions of at least 1");
  expect_refused(one({std::uint64_t{1} << 40, std::uint64_t{1} << 40}, 0, 0), "that fits into 63 bits");
  expect_refused(one({~std::uint64_t{0}}, 0, 0), "that fits into 63 bits");
  expect_refused(one({std::uint64_t{1} << 62}, 0, 0), "t: expected a size that fits into 63 bits");
  for (const std::uint32_t type : {4u, 5u, 33u, 38u, 1000u})
    expect_refused(one({1}, type, 0), "t: expected a type of GGUF, got the number " + std::to_string(type));
  expect_refused(one({48}, 2, 0), "t: expected rows of whole blocks of 32 elements, as it is of type Q4_0, got 48");
  expect_refused(one({16, 2}, 2, 0), "t: expected rows of whole blocks of 32 elements");
  expect_refused(one({1}, 0, 4), "t: expected an offset that is a multiple of general.alignment = 32, got 4");
  expect_refused(one({17}, 0, 0), "t: expected 68 bytes at 0 of the data, got 64 bytes of data");
  expect_refused(one({1}, 0, 64), "t: expected 4 bytes at 64 of the data");
  expect_refused(one({1}, 0, ~std::uint64_t{31}), "t: expected 4 bytes at 18446744073709551584 of the data");
  expect_refused(GgufBytes().tensor("a", {16}, 0, 0).tensor("b", {1}, 0, 32).file(64),
                 "b: expected tensors that do not overlap, got one at 32 behind one that ends at 64");
  expect_refused(GgufBytes().tensor("a", {1}, 0, 0).tensor("a", {1}, 0, 32).file(64),
                 "a: expected a tensor once, got it twice");
  expect_refused(GgufBytes().tensor("", {1}, 0, 0).file(64), "expected the name of a tensor");
}

}  // namespace
}  // namespace foe
