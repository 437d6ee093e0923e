#include "weights/tensor_folder.h"

#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "temp_folder.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<float> kValues = {1, 2, 3, 4, 5, 6};

float first_of(const Tensor& tensor) {
  float value = 0;
  read_floats(tensor, 0, {&value, 1});
  return value;
}

// a [2, 3] and b [1] in one file, c [2] in another.
void write_shards(const TempFolder& folder) {
  write_tensor_file(folder / "one.safetensors", {float_source("a", DType::kF32, {2, 3}, kValues),
                                                 float_source("b", DType::kBF16, {1}, {&kValues[1], 1})});
  write_tensor_file(folder / "two.safetensors", {float_source("c", DType::kF32, {2}, {&kValues[2], 2})});
}

std::string error_with_index(const std::string& index) {
  const TempFolder folder;
  write_shards(folder);
  folder.write("model.safetensors.index.json", index);
  return error_of([&] { TensorFolder tensors(folder.path()); });
}

TEST(TensorFolder, OpensOneFile) {
  const TempFolder folder;
  write_tensor_file(folder / "model.safetensors", {float_source("a", DType::kF32, {2, 3}, kValues)});
  folder.write("model.safetensors.index.json", "the single file comes first");
  const TensorFolder tensors(folder.path());
  EXPECT_EQ(tensors.model_dir(), folder.path());
  EXPECT_TRUE(tensors.contains("a"));
  EXPECT_FALSE(tensors.contains("b"));
  EXPECT_FALSE(tensors.find("b").has_value());
  EXPECT_THAT(tensors.find("a")->shape, ElementsAre(2, 3));
}

TEST(TensorFolder, OpensShards) {
  const TempFolder folder;
  write_shards(folder);
  folder.write("model.safetensors.index.json",
               R"({"metadata": {"total_size": 34}, "weight_map": {
                   "c": "two.safetensors", "a": "one.safetensors", "b": "one.safetensors"}})");
  TensorFolder opened(folder.path());
  const Tensor a = opened.tensor("a", {2, 3});
  const TensorFolder tensors = std::move(opened);  // which leaves the views where they are
  EXPECT_EQ(tensors.files().size(), 2u);
  EXPECT_EQ(first_of(a), 1);
  EXPECT_EQ(first_of(tensors.tensor("b", {1})), 2);
  EXPECT_EQ(first_of(tensors.tensor("c", {2})), 3);
}

TEST(TensorFolder, MissesATensorOfTheIndexOnlyWhereItIsWanted) {
  const TempFolder folder;
  write_shards(folder);
  folder.write("model.safetensors.index.json",
               R"({"weight_map": {"a": "one.safetensors", "lm_head.weight": "one.safetensors"}})");
  const TensorFolder tensors(folder.path());
  EXPECT_TRUE(tensors.contains("a"));
  EXPECT_FALSE(tensors.contains("lm_head.weight"));
  EXPECT_EQ(tensors.first_with("lm"), "");
  EXPECT_THAT(
      error_of([&] {
        tensors.tensor("lm_head.weight", {2, 3});
      }),
      HasSubstr("lm_head.weight: expected a tensor of shape [2, 3] in one.safetensors, where the index has it, got "
                "a file without it"));
}

TEST(TensorFolder, NamesTensorAndShapes) {
  const TempFolder folder;
  const std::vector<std::uint16_t> halves = {0x3c00, 0xc000}, integers = {0, 0};
  write_tensor_file(folder / "model.safetensors", {float_source("a", DType::kF32, {2, 3}, kValues),
                                                   byte_source("h", "F16", {2}, std::as_bytes(std::span(halves))),
                                                   byte_source("i", "I16", {2}, std::as_bytes(std::span(integers)))});
  const TensorFolder tensors(folder.path());
  EXPECT_THAT(error_of([&] {
                tensors.tensor("a", {3, 2});
              }),
              AllOf(HasSubstr(folder.path()), HasSubstr("a: expected shape [3, 2], got [2, 3]")));
  EXPECT_THAT(error_of([&] {
                tensors.tensor("b", {3, 2});
              }),
              HasSubstr("b: expected a tensor of shape [3, 2], got no such tensor"));
  EXPECT_THAT(error_of([&] { tensors.tensor("i", {2}); }),
              HasSubstr("i: expected weights of type F32, BF16 or F16, got I16"));
  EXPECT_THAT(error_of([&] { tensors.find("i"); }), HasSubstr("expected weights of type F32, BF16 or F16, got I16"));
  std::vector<float> values(2);
  read_floats(tensors.tensor("h", {2}), 0, values);
  EXPECT_THAT(values, testing::ElementsAre(1, -2));
}

TEST(TensorFolder, RefusesAFolderWithoutWeights) {
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { TensorFolder tensors(folder.path()); }),
              AllOf(HasSubstr("expected model.safetensors or model.safetensors.index.json"), HasSubstr("got neither")));
  EXPECT_THAT(error_of([&] { TensorFolder tensors(folder / "none"); }), HasSubstr("got neither"));
}

TEST(TensorFolder, RefusesABadIndex) {
  EXPECT_THAT(error_with_index("{"), AllOf(HasSubstr("index.json: expected JSON"), HasSubstr("parse error")));
  EXPECT_THAT(error_with_index("[]"), HasSubstr("expected an object weight_map, got none"));
  EXPECT_THAT(error_with_index("{}"), HasSubstr("expected an object weight_map, got none"));
  EXPECT_THAT(error_with_index(R"({"weight_map": [1]})"), HasSubstr("expected an object weight_map, got [1]"));
  EXPECT_THAT(error_with_index(R"({"weight_map": {"a": "one.safetensors", "a": "one.safetensors"}})"),
              HasSubstr("expected every key once, got \"a\" twice"));
  EXPECT_THAT(error_with_index(R"({"weight_map": {"a": "three.safetensors"}})"),
              AllOf(HasSubstr("three.safetensors: expected a readable file"), HasSubstr("No such file")));
}

TEST(TensorFolder, RefusesShardsOutsideTheFolder) {
  for (const char* name : {R"("../one.safetensors")", R"("/one.safetensors")", R"("sub/one.safetensors")", R"("..")",
                           R"("one..safetensors")", R"("")", R"("one.safetensors\u0000")", "1", "null"}) {
    EXPECT_THAT(error_with_index(std::string(R"({"weight_map": {"a": )") + name + "}}"),
                AllOf(HasSubstr("\"a\": expected the name of a file in the same folder"), HasSubstr("got ")))
        << name;
  }
}

}  // namespace
}  // namespace foe
