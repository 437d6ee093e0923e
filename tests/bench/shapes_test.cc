#include "bench/shapes.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "core/model_tensors.h"

namespace foe {
namespace {

// The paper counts 1.022 and 6.852 billion parameters.
TEST(Shapes, ThePapersModelsHaveItsParameters) {
  const auto millions = [](const char* name) {
    return (parameter_count(load_shape(name).config) + 500'000) / 1'000'000;
  };
  EXPECT_EQ(millions("paper-1b"), 1022);
  EXPECT_EQ(millions("paper-7b"), 6852);
  for (const char* name : {"paper-1b", "paper-7b"}) EXPECT_NO_THROW(validate(load_shape(name).config));
}

// OLMoE-1B-7B has 6.92 billion parameters, 1.28 of them active (its model card says 7 and 1).
TEST(Shapes, ThePeersModelsHaveTheirParameters) {
  const ModelConfig olmoe = load_shape("olmoe").config, qwen = load_shape("qwen3-moe-24l").config;
  const auto ten_millions = [](std::int64_t n) { return (n + 5'000'000) / 10'000'000; };
  EXPECT_EQ(ten_millions(parameter_count(olmoe)), 692);
  EXPECT_EQ(ten_millions(active_parameter_count(olmoe)), 128);
  EXPECT_EQ(ten_millions(parameter_count(qwen)), 134);
  EXPECT_EQ(ten_millions(active_parameter_count(qwen)), 28);
  for (const ModelConfig& config : {olmoe, qwen}) EXPECT_NO_THROW(validate(config));
}

TEST(Shapes, AFolderIsItsOwn) {
  const Shape shape = load_shape(FOE_SOURCE_DIR "/models/moe-8m");
  EXPECT_FALSE(shape.built_in);
  EXPECT_EQ(shape.layers, 6);
  EXPECT_EQ(shape.groups, 4);  // as many as KV heads, if it says none
  EXPECT_THROW(load_shape("paper-2b"), Error);
}

// A federation whose blocks are parallel, or which syncs rarely, has other forms to be compared with.
TEST(Shapes, FormsHaveNothingOfAnotherForm) {
  ModelConfig shape = load_shape("paper-1b").config;
  shape.layers[1].blocks[0].parallel = true;
  shape.experts(1).router->across_groups = true;
  const ModelConfig federated = in_groups(shape, 8, true), grouped = in_groups(shape, 8, false);
  EXPECT_NO_THROW(validate(federated));
  EXPECT_TRUE(federated.reads_updates(2) && !federated.reads_updates(1));
  EXPECT_NO_THROW(validate(grouped));
  EXPECT_FALSE(grouped.experts(1).router->across_groups);
  shape.layers[1].blocks[0].parallel = false;
  shape.group_sync_every = 2;
  EXPECT_NO_THROW(validate(in_groups(shape, 1, false)));
}

}  // namespace
}  // namespace foe
