// The promise "Bits" (docs/architecture.md) for each type of the KV cache: logits depend on neither chunks, nor the
// batch, nor the number of ranks. That rounding is right is tests/kernels' business.
#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "core/change_config.h"
#include "core/configs.h"
#include "random_model.h"
#include "runner.h"

namespace foe {
namespace {

class KvCacheOf : public testing::TestWithParam<KvType> {};

INSTANTIATE_TEST_SUITE_P(KvTypes, KvCacheOf, testing::Values(KvType::kF32, KvType::kBF16, KvType::kInt8),
                         [](const auto& type) { return to_string(type.param); });

std::vector<ModelConfig> configs() {
  ModelConfig full = small_config();
  set(full, &AttentionConfig::qk_norm, QkNorm::kFull);
  return {full, small_federated(4)};
}

TEST_P(KvCacheOf, PrefillIsTokenByTokenAndChunksAreTheWhole) {
  const auto comm = make_self_comm();
  for (const ModelConfig& config : configs()) {
    const RandomModel folder(config);
    const std::vector<std::int32_t> tokens = random_tokens(150, config.vocab_size, 3);
    Runner one(folder.path(), default_plan(config), *comm, 1, GetParam());
    const std::vector<float> whole = in_chunks(one, tokens, 150);
    for (const int chunk : {1, 16, 47, 149}) {
      Runner runner(folder.path(), default_plan(config), *comm, 2, GetParam());
      EXPECT_EQ(in_chunks(runner, tokens, chunk), whole) << "chunks of " << chunk;
    }
  }
}

TEST_P(KvCacheOf, ABatchGivesWhatItsSequencesGiveAlone) {
  const auto comm = make_self_comm();
  for (const ModelConfig& config : configs()) {
    const RandomModel folder(config);
    Runner runner(folder.path(), default_plan(config), *comm, 2, GetParam());
    Batch together;
    std::vector<float> alone;
    for (const int length : {1, 17, 40, 3, 128}) {
      const int s = together.num_sequences();
      const std::vector<std::int32_t> tokens = random_tokens(length, config.vocab_size, s);
      Batch batch;
      batch.add_sequence(tokens, 0, blocks_of(0, length), Batch::Sample::kAll);
      const std::vector<float> logits = runner.run(batch);
      alone.insert(alone.end(), logits.begin(), logits.end());
      together.add_sequence(tokens, 0, blocks_of(s, length), Batch::Sample::kAll);
    }
    EXPECT_EQ(runner.run(together), alone);
  }
}

TEST_P(KvCacheOf, AnyNumberOfRanksGivesTheBitsOfOne) {
  const auto self = make_self_comm();
  for (const ModelConfig& config : configs()) {
    const RandomModel folder(config);
    const std::vector<std::int32_t> tokens = random_tokens(150, config.vocab_size, 5);
    Runner alone(folder.path(), default_plan(config), *self, 1, GetParam());
    const std::vector<float> expected = in_chunks(alone, tokens, 150);
    const Plan plan = config.federated() ? Plan::kFoe : Plan::kEp;
    for (const int ranks : {1, 2, 4})
      run_ranks(ranks, 60, [&](Communicator& comm) {
        Runner runner(folder.path(), plan, comm, 2, GetParam());
        const std::vector<float> logits = in_chunks(runner, tokens, 64, plan == Plan::kEp ? ranks - 1 : 0);
        if (comm.rank() != 0) return;
        EXPECT_EQ(logits, expected) << to_string(plan) << ", " << ranks << " ranks";
      });
  }
}

TEST_P(KvCacheOf, RoundingShows) {
  const RandomModel folder(small_config());
  const auto comm = make_self_comm();
  const std::vector<std::int32_t> tokens = random_tokens(20, folder.config().vocab_size, 4);
  Runner exact(folder.path(), Plan::kTp, *comm), other(folder.path(), Plan::kTp, *comm, 1, GetParam());
  EXPECT_EQ(in_chunks(exact, tokens, 20) == in_chunks(other, tokens, 20), GetParam() == KvType::kF32);
}

TEST(KvCache, IsAsLargeAsItsType) {
  const auto bytes = [](KvType type) { return KvCache(3, 10, {2, 96, 96, type}).bytes(); };
  EXPECT_EQ(bytes(KvType::kF32), 3u * 10 * 2 * 16 * 2 * 96 * 4);
  EXPECT_EQ(bytes(KvType::kBF16), bytes(KvType::kF32) / 2);
  EXPECT_EQ(bytes(KvType::kInt8), bytes(KvType::kF32) / 4 + 3 * 10 * 2 * 16 * 2 * 4);  // and the scales
}

}  // namespace
}  // namespace foe
