// Engines that meet what they should not: numbers past the largest float, ranks that are late.
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/ranks.h"
#include "core/configs.h"
#include "engine/engine.h"
#include "engine/with_engine.h"
#include "model/random_model.h"
#include "weights/tensor_file.h"

namespace foe {
namespace {

Request request_that_fails(std::int64_t id, int prompt, int max_tokens, float temperature = 0) {
  Request r;
  r.id = id;
  r.prompt = random_tokens(prompt, small_config().vocab_size, static_cast<std::uint64_t>(id));
  r.max_tokens = max_tokens;
  r.sampling = {.temperature = temperature, .seed = static_cast<std::uint64_t>(id)};
  return r;
}

// With one tensor in place of the model's.
void replace_tensor(const std::string& path, const std::string& name, float value) {
  std::vector<TensorSource> sources;
  std::vector<float> other;
  {
    const TensorFile file(path + "/model.safetensors");
    for (const TensorInfo& info : file.tensors())
      sources.push_back(byte_source(info.name, info.type->name, info.shape, file.bytes(info)));
    const TensorInfo& changed = *file.find(name);
    other.assign(file.tensor(changed).size(), value);
    std::erase_if(sources, [&](const TensorSource& source) { return source.name == name; });
    sources.push_back(float_source(name, DType::kF32, changed.shape, other));
    write_tensor_file(path + "/model.safetensors", std::move(sources));
  }
}

// Weights may be finite, and what they lead to not: whatever a request asks for, it ends without a token, and the
// engine goes on.
TEST(Engine, EndsRequestsWhoseLogitsAreNotFinite) {
  const RandomModel model(small_federated(2));
  replace_tensor(model.path(), "model.norm.weight", 3e38f);
  for (const int ranks : {1, 2})
    with_engine(model.path(), ranks, {}, [](Engine& engine) {
      Request greedy = request_that_fails(1, 5, 3), drawn = request_that_fails(2, 6, 3, 1.0f),
              scored = request_that_fails(3, 7, 3), biased = greedy;
      scored.sampling.logprobs = 2;
      biased.id = 4;
      biased.sampling.logit_bias = {{7, 1.5f}};
      Request prompt = request_that_fails(5, 8, 3);
      prompt.sampling.prompt_logprobs = 0;
      Request last = request_that_fails(6, 9, 0), mean = request_that_fails(7, 9, 0);
      last.pooling = Pooling::kLast;
      mean.pooling = Pooling::kMean;
      for (const Request& r : {greedy, drawn, scored, biased, prompt, last, mean}) engine.submit(r);
      EXPECT_TRUE(engine.step().empty());
      EXPECT_THAT(engine.failed(), testing::ElementsAre(1, 2, 3, 4, 5, 6, 7));
      EXPECT_TRUE(engine.idle());
      EXPECT_TRUE(engine.step().empty());
      EXPECT_TRUE(engine.failed().empty());
    });
}

// The one that is first waits for the others for longer than --timeout: as long as a start may take, which ends when
// all are there, or with the first step.
TEST(Engine, RanksMayLoadUnevenly) {
  const RandomModel model(small_federated(2));
  for (const bool warms_up : {false, true})
    run_ranks({0, 0, 1}, 60, [&](Communicator& comm) {
      Model mine = load_model(model.path(), Plan::kFoe, comm);
      EngineOptions options;
      options.timeout_s = 3;
      options.warms_up = warms_up;
      if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(4));
      Engine engine(std::move(mine), comm, options);
      EXPECT_EQ(comm.timeout(), warms_up ? 60 : 3);
      if (comm.rank() != 0) {
        engine.follow();
      } else {
        engine.submit(request_that_fails(1, 5, 1));
        EXPECT_EQ(engine.step().size(), 1u);
        EXPECT_EQ(comm.timeout(), 3);
        engine.stop();
      }
      EXPECT_EQ(comm.timeout(), 3);
    });
}

}  // namespace
}  // namespace foe
