// Answers to POST /v1/embeddings.
#include "server/api/embedding.h"

#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/api/recorded_reply.h"
#include "text/base64.h"

namespace foe {
namespace {

using nlohmann::json;
using testing::HasSubstr;

struct Asked {
  std::shared_ptr<RecordedReply> reply = std::make_shared<RecordedReply>();
  Metrics metrics{"m"};
  Embedding embedding;

  explicit Asked(bool normalised = false, bool base64 = false)
      : embedding({Api::kEmbeddings, "embd-1", "m", 1234},
                  {.inputs = {{1, 2, 3}, {4}}, .normalised = normalised, .base64 = base64}, 3, reply, metrics) {}

  void take(std::size_t input, std::vector<float> state, int cached = 0) {
    EXPECT_TRUE(embedding.take(
        input, {.id = 1, .finish = FinishReason::kStop, .cached_tokens = cached, .state = std::move(state)}));
  }
};

TEST(Embedding, RepliesInTheOrderOfTheInputs) {
  Asked asked;
  asked.take(1, {0.1f, -3e-30f, 1});
  EXPECT_FALSE(asked.embedding.ended());
  asked.take(0, {1, 2, 0}, 2);
  EXPECT_TRUE(asked.embedding.ended());
  ASSERT_EQ(asked.reply->responses.size(), 1u);
  const json body = json::parse(asked.reply->responses[0].body);
  // The numbers are those of the state: whoever reads them as f32 or f64 gets the same.
  EXPECT_EQ(body,
            json({{"id", "embd-1"},
                  {"object", "list"},
                  {"created", 1234},
                  {"model", "m"},
                  {"data",
                   {{{"object", "embedding"}, {"index", 0}, {"embedding", {1.0, 2.0, 0.0}}},
                    {{"object", "embedding"}, {"index", 1}, {"embedding", {double{0.1f}, double{-3e-30f}, 1.0}}}}},
                  {"usage",
                   {{"prompt_tokens", 4},
                    {"total_tokens", 4},
                    {"completion_tokens", 0},
                    {"prompt_tokens_details", {{"cached_tokens", 2}}}}}}));
  const std::string metrics = asked.metrics.text();
  for (const char* line :
       {"foe:request_success_total{finished_reason=\"stop\",model_name=\"m\"} 2\n",
        "foe:e2e_request_latency_seconds_count{model_name=\"m\"} 2\n",
        "foe:request_prompt_tokens_sum{model_name=\"m\"} 4\n", "foe:prompt_tokens_cached_total{model_name=\"m\"} 2\n",
        "foe:time_to_first_token_seconds_count{model_name=\"m\"} 0\n"})
    EXPECT_THAT(metrics, HasSubstr(line));
  EXPECT_THAT(asked.embedding.summary(), HasSubstr("embd-1 done, 2 inputs, 4 tokens, 2 of them cached"));
}

TEST(Embedding, HasTheLengthOneOrItsOwn) {
  Asked asked(true, true);
  asked.take(0, {3, 0, -4});
  asked.take(1, {0, 0, 0});
  const json data = json::parse(asked.reply->responses.at(0).body)["data"];
  const auto floats = [&](int input) {
    const std::optional<std::string> bytes = decode_base64(data[input]["embedding"].get<std::string>());
    std::vector<float> all(bytes.value().size() / sizeof(float));
    std::memcpy(all.data(), bytes->data(), bytes->size());
    return all;
  };
  EXPECT_THAT(floats(0), testing::ElementsAre(0.6f, 0.0f, -0.8f));
  EXPECT_THAT(floats(1), testing::Each(0.0f));
  // Squares that no float holds.
  std::vector<float> large{3e30f, 4e30f}, small{3e-30f, 4e-30f};
  normalise(large);
  normalise(small);
  EXPECT_THAT(large, testing::Pointwise(testing::FloatEq(), {0.6f, 0.8f}));
  EXPECT_THAT(small, testing::Pointwise(testing::FloatEq(), {0.6f, 0.8f}));
}

TEST(Embedding, FailsOnceForAll) {
  Asked asked;
  asked.take(0, {1, 2, 3});
  asked.embedding.fail(504, "why");
  EXPECT_TRUE(asked.embedding.ended());
  ASSERT_EQ(asked.reply->responses.size(), 1u);
  EXPECT_EQ(asked.reply->responses[0].status, 504);
  EXPECT_THAT(asked.metrics.text(), HasSubstr("foe:request_failure_total{model_name=\"m\",status=\"504\"} 1"));
  Asked left;
  left.embedding.client_left();
  EXPECT_TRUE(left.embedding.ended());
  EXPECT_TRUE(left.reply->responses.empty());
}

TEST(Embedding, RefusesAStateOfAnotherModel) {
  Asked asked;
  EXPECT_THAT(
      [&] {
        asked.take(0, {1, 2});
      },
      testing::ThrowsMessage<Error>("expected a state of 3 numbers from the ranks, got 2"));
}

}  // namespace
}  // namespace foe
