// What reinforcement learning needs of a served rollout: that the training pass over its tokens, routed as they were,
// has the same probabilities. Here the distributions are equal, so the KL divergence between them is exactly 0.
#include <cmath>
#include <map>

#include <gtest/gtest.h>

#include "engine/sampler.h"
#include "engine/with_engine.h"
#include "trace/route_file.h"
#include "train/checkpoint.h"
#include "train/model.h"
#include "train/tiny_model.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

constexpr int kPrompt = 9, kOutput = 150;  // beyond one span of attention

struct Rollout {
  std::vector<std::int32_t> tokens;    // prompt and output
  std::vector<LogprobEntry> logprobs;  // of each output token, with those of the whole vocabulary
};

class RolloutTest : public testing::TestWithParam<train::TinyCase> {
 protected:
  RolloutTest() : config_(config()), layout_(config_), params_(train::tiny_params<float>(layout_, 5)) {
    tokenizer_.write("tokenizer.json", "{}");
    train::save_model(folder_ / "model", layout_, params_.span(), DType::kF32, tokenizer_.path());
  }

  static ModelConfig config() {
    ModelConfig config = train::tiny_config(GetParam());
    config.max_position_embeddings = 256;
    return config;
  }

  // Serves a greedy and two sampled requests together on so many ranks.
  std::map<std::int64_t, Rollout> serve(int ranks, const std::string& record) const {
    std::map<std::int64_t, Rollout> rollouts;
    RouteRecord file(record);
    const EngineOptions options{.max_batch_tokens = 7, .kv_type = KvType::kF32, .record = {.routes = true}};
    with_engine(folder_ / "model", ranks, options, [&](Engine& engine) {
      RouteWriter writer(record, engine.route_form(), route_origin(engine.model()), 0);
      engine.record_to(&writer);
      for (int id = 0; id < 3; ++id) {
        Request request;
        request.id = id;
        request.prompt = train::tiny_tokens(kPrompt, config_.vocab_size, id);
        request.max_tokens = kOutput;
        request.sampling = {.temperature = id == 0 ? 0.0f : 1.0f, .seed = 7, .logprobs = config_.vocab_size};
        rollouts[id].tokens = request.prompt.tokens();
        engine.submit(request);
      }
      while (!engine.idle())
        for (const TokenEvent& event : engine.step()) {
          rollouts[event.id].tokens.push_back(event.token);
          rollouts[event.id].logprobs.push_back(*event.logprobs);
        }
    });
    file.finish();
    return rollouts;
  }

  // The logits of the training pass over the tokens, of which the last needs none.
  std::vector<float> train_logits(const std::vector<std::int32_t>& tokens, const Route& route) const {
    ThreadPool pool(1);
    train::PackedWeights<float> packed(layout_);
    packed.pack(pool, params_.data());
    const train::Span span{1, static_cast<int>(tokens.size()) - 1};
    train::Activations<float> a(layout_, span.sequences, span.length);
    const train::Model<float> model{layout_, params_.data(), packed};
    train::forward(model, std::span(tokens).first(span.tokens()), span, a, &route);
    std::vector<float> logits(static_cast<std::size_t>(span.tokens()) * config_.vocab_size);
    train::all_logits(model, a, logits.data());
    return logits;
  }

  ModelConfig config_;
  train::Layout layout_;
  AlignedBuffer<float> params_;
  TempFolder tokenizer_, folder_;
};

TEST_P(RolloutTest, HasNoDivergenceFromItsTrainingPass) {
  for (const int ranks : {1, 2}) {
    const std::string record = folder_ / "routes";
    const auto rollouts = serve(ranks, record);
    Sampler sampler(config_.vocab_size);
    for (const auto& [id, rollout] : rollouts) {
      ASSERT_EQ(rollout.logprobs.size(), static_cast<std::size_t>(kOutput));
      const std::vector<float> logits = train_logits(rollout.tokens, load_route(record, id).route);
      double divergence = 0;
      for (int i = 0; i < kOutput; ++i) {
        const auto row = std::span(logits).subspan((kPrompt + i - 1) * config_.vocab_size, config_.vocab_size);
        const LogprobEntry trained = sampler.logprobs(row, rollout.tokens[kPrompt + i], config_.vocab_size);
        const LogprobEntry& served = rollout.logprobs[i];
        ASSERT_EQ(served.logprob, trained.logprob) << "token " << i;
        ASSERT_EQ(served.top.size(), static_cast<std::size_t>(config_.vocab_size));
        for (std::size_t j = 0; j < served.top.size(); ++j) {
          ASSERT_EQ(served.top[j].token, trained.top[j].token);
          divergence += std::exp(served.top[j].logprob) * (served.top[j].logprob - trained.top[j].logprob);
        }
      }
      EXPECT_EQ(divergence, 0.0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Some, RolloutTest,
                         testing::Values(train::tiny_cases()[1], train::tiny_cases()[3], train::tiny_cases()[5]),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace foe
