#include "kernels/formats/stored_blocks.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "kernels/products/gemm.h"

namespace foe {
namespace {

std::vector<std::byte> from_hex(const std::string& hex) {
  std::vector<std::byte> bytes(hex.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  return bytes;
}

std::vector<float> floats_of(const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<float> decoded(DType type, const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / info_of(type).bytes * info_of(type).elements);
  decode(type, bytes.data(), values.size(), values.data());
  return values;
}

const std::map<std::string, DType> kTypes = {{"F16", DType::kF16},   {"BF16", DType::kBF16},  {"Q4_0", DType::kQ4_0},
                                             {"Q4_1", DType::kQ4_1}, {"Q5_0", DType::kQ5_0},  {"Q5_1", DType::kQ5_1},
                                             {"Q8_0", DType::kQ8_0}, {"Q4_K", DType::kQ4_K},  {"Q5_K", DType::kQ5_K},
                                             {"Q6_K", DType::kQ6_K}, {"MXFP4", DType::kMXFP4}};

struct Golden {
  DType type;
  std::vector<std::byte> bytes;
  std::vector<float> values;
};

std::vector<Golden> goldens() {
  std::ifstream file(FOE_SOURCE_DIR "/tests/golden/gguf/blocks.json");
  std::vector<Golden> goldens;
  for (const auto& entry : nlohmann::json::parse(file))
    goldens.push_back({kTypes.at(entry["type"]), from_hex(entry["bytes"]), floats_of(from_hex(entry["values"]))});
  return goldens;
}

// The values are those of the PyPI package gguf, bit for bit.
TEST(StoredBlocks, DecodeToTheValuesOfGguf) {
  const std::vector<Golden> all = goldens();
  ASSERT_EQ(all.size(), kTypes.size());
  for (const Golden& golden : all) {
    ASSERT_FALSE(golden.values.empty());
    EXPECT_EQ(decoded(golden.type, golden.bytes), golden.values) << to_string(golden.type);
  }
}

TEST(StoredBlocks, BytesOfElements) {
  EXPECT_EQ(bytes_of(DType::kF32, 3), 12u);
  EXPECT_EQ(bytes_of(DType::kQ4_0, 64), 36u);
  EXPECT_EQ(bytes_of(DType::kQ6_K, 512), 420u);
  EXPECT_FALSE(in_blocks(DType::kF16));
  EXPECT_TRUE(in_blocks(DType::kMXFP4));
}

// One code by hand: element 17 of Q4_0 is the high half of byte 1.
TEST(StoredBlocks, Q4_0HasHighHalvesBehindLowOnes) {
  std::vector<std::byte> block(18, std::byte{0x88});
  block[0] = std::byte{0x00};
  block[1] = std::byte{0x38};  // 0.5
  block[2 + 1] = std::byte{0xf3};
  const std::vector<float> values = decoded(DType::kQ4_0, block);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(values[i], i == 1 ? 0.5f * -5 : i == 17 ? 0.5f * 7 : 0.f) << i;
}

TEST(StoredBlocks, Mxfp4HasPowersOfTwo) {
  std::vector<std::byte> block(17);
  for (int i = 0; i < 16; ++i) block[1 + i] = std::byte(i * 16 + i);
  for (const int e : {0, 1, 126, 127, 130, 254}) {
    block[0] = std::byte(e);
    const std::vector<float> values = decoded(DType::kMXFP4, block);
    const double levels[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    for (int i = 0; i < 32; ++i) {
      const double expected = std::ldexp((i % 16 < 8 ? 1 : -1) * levels[i % 8], e - 127);
      EXPECT_EQ(values[i], static_cast<float>(expected)) << e << " " << i;
    }
  }
  block[0] = std::byte{255};
  for (const float value : decoded(DType::kMXFP4, block)) EXPECT_TRUE(std::isnan(value));
}

TEST(StoredBlocks, HalvesOfEveryKind) {
  const auto value = [](std::uint16_t bits) { return to_float(F16{bits}); };
  EXPECT_EQ(value(0x3c00), 1.0f);
  EXPECT_EQ(value(0xc000), -2.0f);
  EXPECT_EQ(value(0x7bff), 65504.0f);
  EXPECT_EQ(value(0x0400), 0x1p-14f);
  EXPECT_EQ(value(0x0001), 0x1p-24f);
  EXPECT_EQ(value(0x83ff), -1023 * 0x1p-24f);
  EXPECT_TRUE(std::signbit(value(0x8000)));
  EXPECT_EQ(value(0x7c00), INFINITY);
  EXPECT_EQ(value(0xfc00), -INFINITY);
  EXPECT_TRUE(std::isnan(value(0x7e01)));
}

// Columns need not begin or end where blocks do.
TEST(StoredBlocks, SlicesOfRowsAreSlicesOfValues) {
  for (const Golden& golden : goldens()) {
    const int depth = static_cast<int>(golden.values.size()) / 3, blocks = depth / info_of(golden.type).elements;
    const StoredMatrix whole{golden.type, golden.bytes.data(), bytes_of(golden.type, depth), 3, depth};
    for (const auto& [column, columns] : {std::pair{0, depth}, {0, 5}, {3, 7}, {depth - 20, 20}, {17, depth - 17}}) {
      const StoredMatrix slice = whole.slice(1, 2, column, columns).slice(0, 2, 0, columns);
      for (int row = 0; row < 2; ++row) {
        std::vector<float> values(columns);
        slice.read_row(row, values.data());
        for (int k = 0; k < columns; ++k)
          ASSERT_EQ(values[k], golden.values[(1 + row) * depth + column + k])
              << to_string(golden.type) << " " << blocks << " " << column << " " << k;
      }
    }
    const StoredMatrix part = whole.slice(0, 3, 3, depth - 3).slice(0, 3, 4, 9);
    std::vector<float> values(9);
    part.read_row(2, values.data());
    for (int k = 0; k < 9; ++k) EXPECT_EQ(values[k], golden.values[2 * depth + 7 + k]);
  }
}

TEST(StoredBlocksDeathTest, HalfABlockIsABug) {
  float out[48];
  const std::vector<std::byte> bytes(36);
  EXPECT_DEATH(decode(DType::kQ4_0, bytes.data(), 48, out), "48 elements of q4_0");
}

}  // namespace
}  // namespace foe
