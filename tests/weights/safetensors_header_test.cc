#include "weights/safetensors_header.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temp_folder.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

SafetensorsHeader parse_safetensors(const std::string& file) {
  return parse_safetensors_header(std::as_bytes(std::span(file)), "some.safetensors");
}

struct Refusal {
  const char* name;
  std::string file;
  std::string expected;
  std::string actual;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

// A file whose header has one tensor, "w", of these fields.
std::string one(const std::string& fields, std::size_t data_bytes = 0) {
  return safetensors_bytes("{\"w\":{" + fields + "}}", data_bytes);
}

class HeaderRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(HeaderRefuses, NamingFileExpectedAndActual) {
  EXPECT_THAT(error_of([] { parse_safetensors(GetParam().file); }),
              AllOf(HasSubstr("some.safetensors"), HasSubstr(GetParam().expected), HasSubstr(GetParam().actual)));
}

const std::string kOneFloat = "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]";
const std::string kEight = safetensors_bytes("");

INSTANTIATE_TEST_SUITE_P(
    Prefix, HeaderRefuses,
    testing::Values(
        Refusal{"no_bytes", "", "at least 8 bytes", "got 0"},
        Refusal{"seven_bytes", "1234567", "at least 8 bytes", "got 7"},
        Refusal{"past_the_limit", std::string("\x01\xe1\xf5\x05\0\0\0\0", 8), "at most 100000000",
                "length of 100000001"},
        Refusal{"huge", std::string(8, '\xff') + "{}", "at most 100000000", "length of 18446744073709551615"},
        Refusal{"past_the_file", std::string("\x03\0\0\0\0\0\0\0{}", 10), "inside the file of 10 bytes", "length of 3"},
        Refusal{"empty", kEight, "beginning with '{'", "got an empty one"},
        Refusal{"leading_space", safetensors_bytes(" {}"), "beginning with '{'", "got byte 0x20"},
        Refusal{"array", safetensors_bytes("[]"), "beginning with '{'", "got byte 0x5b"}),
    [](const auto& test) { return std::string(test.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Json, HeaderRefuses,
    testing::Values(
        Refusal{"unfinished", safetensors_bytes("{"), "expected a JSON header", "parse error"},
        Refusal{"two_values", safetensors_bytes("{}{}"), "expected a JSON header", "parse error"},
        Refusal{"nul_after", safetensors_bytes(std::string("{}\0{", 4)), "expected a JSON header", "a NUL at byte 10"},
        Refusal{"bad_utf8", safetensors_bytes("{\"\xc3\x28\":1}"), "expected a JSON header", "UTF-8"},
        Refusal{"overlong_utf8", safetensors_bytes("{\"\xc0\xaf\":1}"), "expected a JSON header", "UTF-8"},
        Refusal{"nan", one("\"dtype\":\"F32\",\"shape\":[NaN]"), "expected a JSON header", "invalid literal"},
        Refusal{"float_overflow", one("\"dtype\":\"F32\",\"shape\":[1e999]"), "JSON header", "number overflow"},
        Refusal{"value_for_a_tensor", safetensors_bytes("{\"w\":null}"), "\"w\": expected an object", "got null"},
        Refusal{"list_for_a_tensor", safetensors_bytes("{\"w\":[1]}"), "\"w\": expected an object", "got an array"},
        Refusal{"metadata_number", safetensors_bytes("{\"__metadata__\":{\"a\":1}}"), "\"a\": expected a string",
                "got 1"},
        Refusal{"metadata_object", safetensors_bytes("{\"__metadata__\":{\"a\":{}}}"), "\"a\": expected a string",
                "got an object"},
        Refusal{"metadata_string", safetensors_bytes("{\"__metadata__\":\"a\"}"), "expected an object", "got \"a\""},
        Refusal{"metadata_twice", safetensors_bytes("{\"__metadata__\":{},\"__metadata__\":{}}"), "every key once",
                "got \"__metadata__\" twice"},
        Refusal{"metadata_key_twice", safetensors_bytes("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}"), "every key once",
                "got \"a\" twice"},
        Refusal{"tensor_twice",
                safetensors_bytes("{\"w\":{" + kOneFloat +
                                      "},\"w\":{\"dtype\":\"F32\",\"shape\":[1],"
                                      "\"data_offsets\":[4,8]}}",
                                  8),
                "every tensor once", "got \"w\" twice"}),
    [](const auto& test) { return std::string(test.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Entry, HeaderRefuses,
    testing::Values(
        Refusal{"field_twice", one("\"dtype\":\"F32\",\"dtype\":\"F32\""), "every key once", "got \"dtype\" twice"},
        Refusal{"unknown_field", one("\"strides\":[1]"), "only the keys dtype, shape and data_offsets", "\"strides\""},
        Refusal{"no_dtype", one("\"shape\":[1],\"data_offsets\":[0,4]"), "the key dtype", "got none"},
        Refusal{"no_shape", one("\"dtype\":\"F32\",\"data_offsets\":[0,4]"), "the key shape", "got none"},
        Refusal{"no_offsets", one("\"dtype\":\"F32\",\"shape\":[1]"), "the key data_offsets", "got none"},
        Refusal{"unknown_dtype", one("\"dtype\":\"f32\""), "a type of safetensors", "got \"f32\""},
        Refusal{"dtype_number", one("\"dtype\":32"), "dtype: expected a string", "got 32"},
        Refusal{"dtype_list", one("\"dtype\":[]"), "dtype: expected a string", "got an array"},
        Refusal{"shape_string", one("\"shape\":\"1\""), "shape: expected an array", "got \"1\""},
        Refusal{"shape_object", one("\"shape\":{}"), "shape: expected an array", "got an object"},
        Refusal{"shape_bool", one("\"shape\":[true]"), "integers of at least 0", "got true"},
        Refusal{"shape_nested", one("\"shape\":[[1]]"), "integers of at least 0", "got an array"},
        Refusal{"shape_negative", one("\"shape\":[-1]"), "integers of at least 0", "got -1"},
        Refusal{"shape_fraction", one("\"shape\":[1.5]"), "integers of at least 0", "got 1.5"},
        Refusal{"shape_past_int64", one("\"shape\":[9223372036854775808]"), "below 2^63", "got 9223372036854775808"},
        Refusal{"rank", one("\"shape\":[1,1,1,1,1,1,1,1,1]"), "at most 8 numbers", "got more"},
        Refusal{"one_offset", one("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]"), "2 numbers", "got 1"},
        Refusal{"three_offsets", one("\"data_offsets\":[0,4,8]"), "at most 2 numbers", "got more"},
        Refusal{"offsets_reversed", one("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]", 4), "begin <= end",
                "got [4, 0]"},
        Refusal{"shape_overflows", one("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"),
                "a whole number of bytes", "got shape [4294967296, 4294967296] of F32"},
        Refusal{"half_a_byte", one("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]", 1),
                "a whole number of bytes", "got shape [3] of F4"},
        Refusal{"span_too_short", one("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]", 4),
                "8 bytes for shape [2] of F32", "got data_offsets [0, 4]"}),
    [](const auto& test) { return std::string(test.param.name); });

// Two tensors of one byte each at these offsets.
std::string two(const std::string& first, const std::string& second, std::size_t data_bytes) {
  const auto entry = [](const std::string& begin_end) {
    return "{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" + begin_end + "]}";
  };
  return safetensors_bytes("{\"a\":" + entry(first) + ",\"b\":" + entry(second) + "}", data_bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Layout, HeaderRefuses,
    testing::Values(Refusal{"hole_before", two("1,2", "2,3", 3), "\"a\": expected data_offsets to begin at 0", "got 1"},
                    Refusal{"hole_between", two("0,1", "2,3", 3), "\"b\": expected data_offsets to begin at 1",
                            "got 2"},
                    Refusal{"overlap", two("0,1", "0,1", 1), "expected data_offsets to begin at 1", "got 0"},
                    Refusal{"data_missing", two("0,1", "1,2", 1), "2 bytes of data", "got 1"},
                    Refusal{"data_left", two("0,1", "1,2", 3), "2 bytes of data", "got 3"},
                    Refusal{"data_but_no_tensor", safetensors_bytes("{}", 1), "0 bytes of data", "got 1"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(SafetensorsHeader, ShortensWhatItQuotes) {
  const std::string name(5000, 'x');
  EXPECT_LT(error_of([&] { parse_safetensors(safetensors_bytes("{\"" + name + "\":1}")); }).size(), 400u);
  EXPECT_LT(error_of([&] { parse_safetensors(safetensors_bytes("{\"" + name)); }).size(), 400u);
}

TEST(SafetensorsHeader, ReadsTensorsInAnyOrder) {
  const std::string file = safetensors_bytes(
      "{\"z\":{\"data_offsets\":[0,6],\"shape\":[1,3],\"dtype\":\"BF16\"},"
      "\"__metadata__\":{\"format\":\"pt\"},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[6,10]},"
      "\"empty\":{\"dtype\":\"I64\",\"shape\":[2,0],\"data_offsets\":[6,6]}}   ",
      10);
  const SafetensorsHeader header = parse_safetensors(file);
  const std::size_t data = file.size() - 10;
  ASSERT_EQ(header.tensors.size(), 3u);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_THAT(header.tensors[0].shape, ElementsAre());
  EXPECT_EQ(header.tensors[0].type->name, "F32");
  EXPECT_EQ(header.tensors[0].begin, data + 6);
  EXPECT_EQ(header.tensors[0].end, data + 10);
  EXPECT_EQ(header.tensors[1].name, "empty");
  EXPECT_EQ(header.tensors[1].begin, header.tensors[1].end);
  EXPECT_EQ(header.tensors[2].name, "z");
  EXPECT_THAT(header.tensors[2].shape, ElementsAre(1, 3));
  EXPECT_EQ(header.tensors[2].end, data + 6);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_TRUE(parse_safetensors(safetensors_bytes("{}")).tensors.empty());
}

TEST(SafetensorsHeader, KnowsTheSizeOfEveryType) {
  const auto bytes_of_8 = [](const char* name) {
    return *tensor_bytes(*find_stored_type(name), std::vector<std::int64_t>{8});
  };
  for (const char* name : {"F64", "I64", "U64", "C64"}) EXPECT_EQ(bytes_of_8(name), 64) << name;
  for (const char* name : {"F32", "I32", "U32"}) EXPECT_EQ(bytes_of_8(name), 32) << name;
  for (const char* name : {"BF16", "F16", "I16", "U16"}) EXPECT_EQ(bytes_of_8(name), 16) << name;
  for (const char* name : {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})
    EXPECT_EQ(bytes_of_8(name), 8) << name;
  for (const char* name : {"F6_E2M3", "F6_E3M2"}) EXPECT_EQ(bytes_of_8(name), 6) << name;
  EXPECT_EQ(bytes_of_8("F4"), 4);
  EXPECT_EQ(find_stored_type(""), nullptr);
}

}  // namespace
}  // namespace foe
