#include "weights/identity.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "temp_folder.h"
#include "weights/tensor_writer.h"

namespace foe {
namespace {

std::uint64_t digest_of(const TempFolder& folder) {
  ThreadPool pool(2);
  return tensors_digest(pool, TensorFolder(folder.path()));
}

std::string sha256_of(const TempFolder& folder, int threads = 2) {
  ThreadPool pool(threads);
  return weights_sha256(pool, TensorFolder(folder.path()));
}

void flip(const TempFolder& folder, std::size_t at) {
  std::fstream file(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(byte ^ 1));
}

TEST(TensorsDigest, SeesEveryBitOfSmallTensorsAndPagesOfLargeOnes) {
  const TempFolder folder;
  const std::vector<float> small(1000, 0.5f), large(1 << 20, 0.25f);
  write_tensor_file(folder / "model.safetensors", {float_source("small", DType::kF32, {1000}, small),
                                                   float_source("large", DType::kF32, {1 << 20}, large)});
  const std::uint64_t before = digest_of(folder);
  EXPECT_EQ(digest_of(folder), before);
  const TensorFile file(folder / "model.safetensors");
  const TensorInfo &a = *file.find("small"), &b = *file.find("large");
  for (const std::size_t at :
       {a.begin, a.begin + 2001, a.end - 1, b.begin, b.begin + 4095, b.begin + (3 << 20), b.end - 4096, b.end - 1}) {
    flip(folder, at);
    EXPECT_NE(digest_of(folder), before) << at;
    flip(folder, at);
  }
  EXPECT_EQ(digest_of(folder), before);
}

TEST(WeightsSha256, SeesEveryBit) {
  const TempFolder folder;
  const std::vector<float> small(1000, 0.5f), large(5 << 20, 0.25f);  // 20 MiB: two pieces
  write_tensor_file(folder / "model.safetensors", {float_source("small", DType::kF32, {1000}, small),
                                                   float_source("large", DType::kF32, {5 << 20}, large)});
  const std::string before = sha256_of(folder);
  EXPECT_EQ(before.size(), 64u);
  EXPECT_EQ(sha256_of(folder, 1), before);
  const TensorFile file(folder / "model.safetensors");
  const TensorInfo &a = *file.find("small"), &b = *file.find("large");
  for (const std::size_t at :
       {a.begin + 2001, b.begin + 5000, b.begin + (16 << 20) - 1, b.begin + (16 << 20), b.end - 1}) {
    flip(folder, at);
    EXPECT_NE(sha256_of(folder), before) << at;
    flip(folder, at);
  }
  EXPECT_EQ(sha256_of(folder), before);
}

TEST(TensorsDigest, SeesNamesTypesAndShapesAndNotWhichFileHasThem) {
  const TempFolder one, other, renamed, reshaped;
  const std::vector<float> values(12, 0.5f);
  const auto a = float_source("a", DType::kF32, {3, 4}, values), b = float_source("b", DType::kBF16, {12}, values);
  write_tensor_file(one / "model.safetensors", {a, b});
  write_tensor_file(other / "1.safetensors", {b});
  write_tensor_file(other / "2.safetensors", {a});
  other.write("model.safetensors.index.json", R"({"weight_map": {"b": "1.safetensors", "a": "2.safetensors"}})");
  EXPECT_EQ(digest_of(other), digest_of(one));
  EXPECT_EQ(sha256_of(other), sha256_of(one));
  write_tensor_file(renamed / "model.safetensors", {float_source("c", DType::kF32, {3, 4}, values), b});
  EXPECT_NE(digest_of(renamed), digest_of(one));
  EXPECT_NE(sha256_of(renamed), sha256_of(one));
  write_tensor_file(reshaped / "model.safetensors", {float_source("a", DType::kF32, {4, 3}, values), b});
  EXPECT_NE(digest_of(reshaped), digest_of(one));
  EXPECT_NE(sha256_of(reshaped), sha256_of(one));
}

}  // namespace
}  // namespace foe
