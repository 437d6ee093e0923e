// Models of GGUF files whose weights keep their numbers in panels (weights/kept_formats.h), against logits that were
// computed in float64 from these numbers (tools/make_gguf_goldens.py).
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "runner.h"
#include "weights/kept_formats.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

struct Golden {
  std::string path;
  std::vector<std::int32_t> tokens;
  std::vector<float> logits;

  explicit Golden(const std::string& name) : path(FOE_SOURCE_DIR "/tests/golden/gguf/" + name) {
    const TensorFile file(path + ".expected.safetensors");
    path += ".gguf";
    const auto ids = file.bytes(*file.find("tokens")), values = file.bytes(*file.find("logits"));
    std::vector<std::int64_t> wide(ids.size() / sizeof(std::int64_t));
    std::memcpy(wide.data(), ids.data(), ids.size());
    tokens.assign(wide.begin(), wide.end());
    logits.resize(values.size() / sizeof(float));
    std::memcpy(logits.data(), values.data(), values.size());
  }
};

double rms(const std::vector<float>& x) {
  return distance(x, std::vector<float>(x.size())) / std::sqrt(static_cast<double>(x.size()));
}

class GgufPanels : public testing::TestWithParam<const char*> {};

// Activations have codes of 8 bits: a step is the largest of at most 128 / 127. The largest of so many has a magnitude
// of about 2.7 deviations and seldom more than 4, so rounding adds noise of 4 / 127 / sqrt(12) = 0.9 % of an input at
// most, in the mean. Weights in other blocks are rounded to bf16, by 2^-9 / sqrt(3) = 0.1 %. A layer has seven
// products, and the head is one more; their noise is independent.
TEST_P(GgufPanels, AreAsNearToFloat64AsRoundedActivationsAre) {
  const Golden golden(GetParam());
  const auto comm = make_self_comm();
  Runner runner(golden.path, Plan::kTp, *comm);
  const WeightFormats& formats = runner.model.weights.formats;
  EXPECT_FALSE(formats.kept_attention.formats.empty());
  const std::vector<float> logits = in_chunks(runner, golden.tokens, 100);
  ASSERT_EQ(logits.size(), golden.logits.size());
  const double noise = 0.01 * std::sqrt(7.0 * runner.model.config.num_layers() + 1);
  const double off = distance(logits, golden.logits) / std::sqrt(static_cast<double>(logits.size()));
  EXPECT_LT(off, noise * rms(golden.logits)) << off / rms(golden.logits);
}

TEST_P(GgufPanels, HaveTheSameBitsInChunksAndOnRanks) {
  const Golden golden(GetParam());
  const auto self = make_self_comm();
  Runner alone(golden.path, Plan::kTp, *self);
  const std::vector<float> expected = in_chunks(alone, golden.tokens, 100);
  for (const int chunk : {1, 7}) EXPECT_EQ(in_chunks(alone, golden.tokens, chunk), expected) << "chunks of " << chunk;
  run_ranks(2, 60, [&](Communicator& comm) {
    Runner runner(golden.path, Plan::kTp, comm, 2);
    const std::vector<float> logits = in_chunks(runner, golden.tokens, 32);
    if (comm.rank() != 0) return;
    EXPECT_EQ(logits, expected);
  });
}

INSTANTIATE_TEST_SUITE_P(Goldens, GgufPanels, testing::Values("llama_types", "llama_k", "qwen3", "granite", "olmo2"),
                         [](const auto& golden) { return std::string(golden.param); });

}  // namespace
}  // namespace foe
