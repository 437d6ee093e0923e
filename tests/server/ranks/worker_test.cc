#include "server/ranks/worker.h"

#include <gtest/gtest.h>

namespace foe {
namespace {

TEST(Worker, TheKvCacheTakesFourGiBOfItsType) {
  ModelConfig c;
  c.max_position_embeddings = 4096;
  c.layers = uniform_layers(16, {.query_heads = 8, .kv_heads = 8, .key_width = 96}, dense_experts(1));
  constexpr std::int64_t kBytes = std::int64_t{4} << 30;
  const std::int64_t elements = 16 * 8 * 2 * 96, scales = 16 * 8 * 2;
  EXPECT_EQ(default_kv_tokens(c, KvType::kF32, 1000), kBytes / (4 * elements));
  EXPECT_EQ(default_kv_tokens(c, KvType::kBF16, 1000), kBytes / (2 * elements));
  EXPECT_EQ(default_kv_tokens(c, KvType::kInt8, 1000), kBytes / (elements + 4 * scales));
  EXPECT_EQ(default_kv_tokens(c, KvType::kBF16, 3), 3 * 4096) << "as many contexts as there can be sequences";
  c.max_position_embeddings = 1 << 20;
  EXPECT_EQ(default_kv_tokens(c, KvType::kBF16, 3), 1 << 20) << "one context at least";
}

}  // namespace
}  // namespace foe
