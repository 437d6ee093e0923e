#include "core/sum_blocks.h"

#include <gtest/gtest.h>

#include "core/configs.h"

namespace foe {
namespace {

ModelConfig model(int kv_heads, int experts, int width) {
  ModelConfig c;
  c.layers = uniform_layers(
      1, {.query_heads = kv_heads, .kv_heads = kv_heads, .key_width = 8},
      experts > 0 ? ExpertsConfig{.count = experts, .per_token = experts, .width = width, .router = RouterConfig{}}
                  : dense_experts(width));
  return c;
}

TEST(SumBlocks, OfHeads) {
  EXPECT_EQ(head_blocks(model(1, 8, 64)).begin, (std::vector<int>{0, 1}));
  EXPECT_EQ(head_blocks(model(8, 8, 64)).begin, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(head_blocks(model(12, 8, 64)).begin, (std::vector<int>{0, 1, 3, 4, 6, 7, 9, 10, 12}));
  EXPECT_EQ(head_blocks(model(32, 8, 64)).begin, (std::vector<int>{0, 4, 8, 12, 16, 20, 24, 28, 32}));
  ModelConfig federated = model(32, 8, 64);
  federated.residual = Residual::kFederated;
  federated.expert_groups = 2;
  EXPECT_EQ(head_blocks(federated).begin, (std::vector<int>{0, 16, 32}));
}

TEST(SumBlocks, OfADenseModelsWidth) {
  EXPECT_EQ(width_blocks(model(8, 8, 768), 0).begin, (std::vector<int>{0, 768}));  // experts are whole
  EXPECT_EQ(width_blocks(model(8, 0, 24), 0).begin, (std::vector<int>{0, 24}));
  EXPECT_EQ(width_blocks(model(8, 0, 300), 0).begin, (std::vector<int>{0, 128, 256, 300}));
  EXPECT_EQ(width_blocks(model(8, 0, 2048), 0).begin,
            (std::vector<int>{0, 256, 512, 768, 1024, 1280, 1536, 1792, 2048}));
  // 86 units of 128.
  EXPECT_EQ(width_blocks(model(8, 0, 11008), 0).begin,
            (std::vector<int>{0, 1280, 2688, 4096, 5504, 6784, 8192, 9600, 11008}));
}

TEST(SumBlocks, WithinAPart) {
  const SumBlocks blocks = head_blocks(model(12, 8, 64));
  const Range own = blocks.within({3, 9});
  EXPECT_EQ(own.begin, 2);
  EXPECT_EQ(own.end, 6);
  EXPECT_EQ(blocks.within({12, 12}).size(), 0);
  EXPECT_EQ(blocks.within({0, 0}).size(), 0);
  EXPECT_DEATH(blocks.within({2, 9}), "cuts one of 8 blocks");
}

}  // namespace
}  // namespace foe
