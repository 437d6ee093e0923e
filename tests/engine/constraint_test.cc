// Outputs that have to be JSON: they are, whatever else runs, and go on behind what a request brings.
#include <algorithm>
#include <map>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "core/configs.h"
#include "engine/engine.h"
#include "engine/with_engine.h"
#include "model/random_model.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int32_t kEnd = 560;
constexpr const char* kSchema =
    R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
        "required": ["name", "age"], "additionalProperties": false})";

class ConstraintTest : public testing::Test {
 protected:
  ConstraintTest() {
    ModelConfig config = small_config();
    config.vocab_size = 561;
    folder_ = std::make_unique<RandomModel>(config);
  }

  std::unique_ptr<Communicator> comm_ = make_self_comm();
  std::unique_ptr<RandomModel> folder_;
};

Request request_of(std::int64_t id, std::vector<std::int32_t> output = {}) {
  Request r;
  r.id = id;
  r.prompt = {1, 2, static_cast<std::int32_t>(3 + id)};
  r.output = std::move(output);
  r.max_tokens = 100;
  r.stop_ids = {kEnd};
  r.sampling.temperature = 1.0f;
  r.sampling.seed = static_cast<std::uint64_t>(id);
  r.constraint = {Constraint::Kind::kJsonSchema, kSchema};
  return r;
}

using Outputs = std::map<std::int64_t, std::vector<std::int32_t>>;

Outputs run_constrained(const RandomModel& folder, Communicator& comm, const std::vector<Request>& requests) {
  Engine engine(load_model(folder.path(), Plan::kEp, comm), comm, {.kv_tokens = 2048});
  engine.allow_constraints(std::make_shared<TokenTable>(gpt2_tokenizer(), engine.model().config.vocab_size));
  Outputs outputs;
  for (const Request& r : requests) {
    outputs[r.id] = r.output;
    engine.submit(r);
  }
  while (!engine.idle())
    for (const TokenEvent& event : engine.step()) outputs[event.id].push_back(event.token);
  return outputs;
}

// Between two masks rank 0 can tell the others that it is alive.
TEST_F(ConstraintTest, TellsBetweenMasksAndMayHeartbeatThen) {
  const std::vector<Request> requests = {request_of(1), request_of(2), request_of(3)};
  const Outputs expected = run_constrained(*folder_, *comm_, requests);
  std::size_t tokens = 0, told = 0;
  for (const auto& [id, output] : expected) tokens += output.size();
  Outputs outputs;
  with_engine(folder_->path(), Plan::kEp, 2, {.kv_tokens = 2048}, [&](Engine& engine) {
    engine.allow_constraints(std::make_shared<TokenTable>(gpt2_tokenizer(), engine.model().config.vocab_size));
    engine.when_slow([&] {
      ++told;
      engine.heartbeat();
    });
    for (const Request& r : requests) engine.submit(r, compile_grammar(r.constraint));
    while (!engine.idle())
      for (const TokenEvent& event : engine.step()) outputs[event.id].push_back(event.token);
  });
  EXPECT_EQ(outputs, expected);
  EXPECT_EQ(told, tokens);
}

TEST_F(ConstraintTest, OutputsFitTheSchema) {
  std::vector<Request> requests;
  for (int id = 1; id <= 8; ++id) requests.push_back(request_of(id));
  const Outputs together = run_constrained(*folder_, *comm_, requests);
  for (const Request& r : requests) {
    std::vector<std::int32_t> output = together.at(r.id);
    ASSERT_EQ(output.back(), kEnd);
    output.pop_back();
    const auto value = nlohmann::json::parse(gpt2_tokenizer().decode(output));
    EXPECT_TRUE(value.at("name").is_string() && value.at("age").is_number_integer() && value.size() == 2) << value;
    // The same alone, and where it goes on behind a part of it.
    EXPECT_EQ(run_constrained(*folder_, *comm_, {r}), (Outputs{{r.id, together.at(r.id)}}));
    const std::vector<std::int32_t> part(output.begin(), output.begin() + output.size() / 2);
    EXPECT_EQ(run_constrained(*folder_, *comm_, {request_of(r.id, part)}), (Outputs{{r.id, together.at(r.id)}}));
  }
}

// Reasoning, whose marks are tokens, is free; the text behind it fits the schema, also where a request goes on within
// it.
TEST_F(ConstraintTest, HoldsBehindTheReasoning) {
  constexpr std::int32_t kBegin = 500, kBehind = 501;
  const auto thinking = [](std::int64_t id, bool begun, float bias) {
    Request r = request_of(id);
    r.max_tokens = 400;
    r.reasoning = {kBegin, kBehind, begun};
    r.sampling.logit_bias = {{kBegin, bias}, {kBehind, std::max(4.0f, bias)}};
    return r;
  };
  const auto expect_schema = [](std::vector<std::int32_t> output) {
    ASSERT_EQ(output.back(), kEnd);
    output.pop_back();
    const std::string text = gpt2_tokenizer().decode(output);
    EXPECT_EQ(nlohmann::json::parse(text).size(), 2u) << text;
  };
  for (std::int64_t id = 1; id <= 4; ++id) {
    const bool begun = id % 2 == 0;
    const Request r = thinking(id, begun, begun ? 0.0f : 12.0f);
    const std::vector<std::int32_t> output = run_constrained(*folder_, *comm_, {r}).at(id);
    const auto behind = std::ranges::find(output, kBehind);
    ASSERT_NE(behind, output.end());
    EXPECT_EQ(output.front() == kBegin, !begun);
    EXPECT_EQ(std::find(output.begin(), behind, kEnd), behind);
    expect_schema({behind + 1, output.end()});
    for (const std::ptrdiff_t size : {std::ptrdiff_t{1}, behind - output.begin(), behind - output.begin() + 2}) {
      Request again = r;
      again.output.assign(output.begin(), output.begin() + size);
      EXPECT_EQ(run_constrained(*folder_, *comm_, {again}).at(id), output) << size;
    }
    expect_schema(run_constrained(*folder_, *comm_, {thinking(id, false, -100)}).at(id));  // without any reasoning
  }
  // A mark that the rule itself allows is a part of its text.
  Request choice = thinking(5, false, 0);
  choice.constraint = {Constraint::Kind::kChoice, nlohmann::json::array({gpt2_tokenizer().token_bytes(kBegin)}).dump()};
  EXPECT_EQ(gpt2_tokenizer().decode(run_constrained(*folder_, *comm_, {choice}).at(5)),
            std::string(gpt2_tokenizer().token_bytes(kBegin)) + gpt2_tokenizer().decode(std::vector{kEnd}));
}

TEST_F(ConstraintTest, EndsWhereNothingCanFollow) {
  // What it brings is no beginning of such an object.
  const Outputs outputs = run_constrained(*folder_, *comm_, {request_of(1, gpt2_tokenizer().encode("[1"))});
  EXPECT_EQ(outputs.at(1).back(), kEnd);
}

// Whatever comes under an id that is here: what is there keeps its constraint and its place in it.
TEST_F(ConstraintTest, AnIdThatIsHereIsRefused) {
  const Outputs expected = run_constrained(*folder_, *comm_, {request_of(1)});
  Engine engine(load_model(folder_->path(), Plan::kEp, *comm_), *comm_, {.kv_tokens = 2048});
  engine.allow_constraints(std::make_shared<TokenTable>(gpt2_tokenizer(), engine.model().config.vocab_size));
  engine.submit(request_of(1));
  Request plain = request_of(1), other = request_of(1);
  plain.constraint = {};
  other.constraint.rule = R"({"type": "integer"})";
  Outputs outputs;
  while (!engine.idle()) {
    for (const TokenEvent& event : engine.step()) outputs[event.id].push_back(event.token);
    if (engine.idle()) break;
    for (const Request& again : {request_of(1), plain, other})
      EXPECT_THAT([&] { engine.submit(again); },
                  ThrowsMessage<Error>("id: expected a new request, but request 1 is here already"));
  }
  EXPECT_EQ(outputs, expected);
}

TEST_F(ConstraintTest, RefusesWhatCannotBeKept) {
  Engine engine(load_model(folder_->path(), Plan::kEp, *comm_), *comm_, {.kv_tokens = 512});
  EXPECT_THAT([&] { engine.submit(request_of(1)); }, ThrowsMessage<Error>(HasSubstr("a model with a tokenizer")));
  engine.allow_constraints(std::make_shared<TokenTable>(gpt2_tokenizer(), engine.model().config.vocab_size));
  Request endless = request_of(1);
  endless.stop_ids = {100000};
  EXPECT_THAT([&] { engine.submit(endless); }, ThrowsMessage<Error>(HasSubstr("expected a stop token")));
  Request broken = request_of(1);
  broken.constraint.rule = R"({"type": "nothing"})";
  EXPECT_THAT([&] { engine.submit(broken); }, ThrowsMessage<Error>(HasSubstr("#/type")));
  EXPECT_TRUE(engine.idle());
}

}  // namespace
}  // namespace foe
