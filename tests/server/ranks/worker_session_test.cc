// Rank 0 with a front end that says exactly what a test wants.
#include <map>
#include <memory>
#include <optional>
#include <poll.h>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/configs.h"
#include "model/random_model.h"
#include "server/ranks/link.h"
#include "server/ranks/worker.h"
#include "tokenizer/gpt2_tokenizer.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

constexpr std::int32_t kEnd = 560;

class WorkerSession : public testing::Test {
 protected:
  WorkerSession() : listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), path_(folder_.path() + "/link") {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 1), 0);
    ModelConfig config = small_config();
    config.vocab_size = 561;
    model_.emplace(config);
    rank_ = std::thread([this] {
      const auto comm = make_self_comm();
      Engine engine(load_model(model_->path(), Plan::kEp, *comm), *comm, {.kv_tokens = 4096, .max_draft = 8});
      engine.allow_constraints(std::make_shared<TokenTable>(gpt2_tokenizer(), engine.model().config.vocab_size));
      serve_front_end(engine, {.socket_path = path_, .max_batch_tokens = 512, .kv_tokens = 4096});
    });
    link_ = accept(listener_, nullptr, nullptr);
    while (!std::holds_alternative<Ready>(next())) {
    }
  }
  ~WorkerSession() override {
    say({Stop{}});
    rank_.join();
    close(link_);
    close(listener_);
  }

  void say(const std::vector<ToRanks>& messages) const {
    std::string bytes;
    for (const ToRanks& message : messages) append_message(bytes, message);
    for (std::string_view left = bytes; !left.empty();) {
      const ssize_t n = send(link_, left.data(), left.size(), MSG_NOSIGNAL);
      ASSERT_GT(n, 0);
      left.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  // The next message, out of what has come or comes next.
  FromRanks next() {
    for (;;) {
      if (const auto payload = received_.next()) return parse_from_ranks(*payload);
      char bytes[1 << 16];
      pollfd poll_fd{link_, POLLIN, 0};
      const ssize_t n = poll(&poll_fd, 1, 20000) > 0 ? recv(link_, bytes, sizeof bytes, 0) : 0;
      if (n <= 0) throw std::runtime_error("nothing came");
      received_.append({bytes, static_cast<std::size_t>(n)});
    }
  }
  // Whether more has come together with the last message.
  bool more_at_hand() { return received_.next().has_value(); }

 private:
  TempFolder folder_;
  int listener_, link_ = -1;
  std::string path_;
  std::optional<RandomModel> model_;
  std::thread rank_;
  MessageBuffer received_;
};

Request request_of(std::int64_t id, int max_tokens) {
  Request request;
  request.id = id;
  request.prompt = {1, 2, 3};
  request.max_tokens = max_tokens;
  request.stop_ids = {kEnd};
  return request;
}

Request with_schema(std::int64_t id, int schema) {
  Request request = request_of(id, 40);
  request.constraint = {Constraint::Kind::kJsonSchema, R"({"enum": ["one", )" + std::to_string(schema) + "]}"};
  return request;
}

// An idle rank waits for a second between heartbeats. What it refuses is not sent with the next of those.
TEST_F(WorkerSession, SaysAtOnceWhatItRefuses) {
  say({Submit{request_of(1, 100000)}});
  for (;;) {
    const FromRanks message = next();
    const auto* refused = std::get_if<Refused>(&message);
    if (!refused) continue;
    EXPECT_EQ(refused->id, 1);
    EXPECT_THAT(refused->reason, testing::HasSubstr("maximum context length"));
    break;
  }
  EXPECT_FALSE(more_at_hand());
}

// A step may take long: who runs in it is said before it, and what has run with its tokens.
TEST_F(WorkerSession, SaysWhoRunsBeforeItsTokens) {
  say({Submit{request_of(1, 2)}});
  std::vector<SchedulerStats> before;
  for (bool ended = false; !ended;) {
    const FromRanks message = next();
    if (const auto* load = std::get_if<SchedulerReport>(&message)) before.push_back(load->stats);
    if (const auto* tokens = std::get_if<NewTokens>(&message)) ended = tokens->events.back().finish.has_value();
  }
  ASSERT_GE(before.size(), 3u);  // before the first step, and after each
  EXPECT_EQ(before[0].running, 1);
  EXPECT_EQ(before[1].tokens_run - before[0].tokens_run, 3);
  EXPECT_EQ(before.back().running, 0);
  EXPECT_EQ(before.back().tokens_run - before[0].tokens_run, 4);
}

// A step may have several tokens of a sequence. They come in their order beside events that travel alone, as those with
// logprobs of a prompt do.
TEST_F(WorkerSession, SaysTokensInTheirOrder) {
  Request repeats = request_of(1, 200);
  repeats.constraint = {Constraint::Kind::kRegex, "(abcdefgh){20}"};
  say({Submit{repeats}});
  std::vector<std::int32_t> output;
  bool ended = false;
  for (std::int64_t id = 2; !ended;) {
    const FromRanks message = next();
    const auto* tokens = std::get_if<NewTokens>(&message);
    if (!tokens) continue;
    for (const TokenEvent& event : tokens->events) {
      if (event.id != 1) continue;
      output.push_back(event.token);
      ended = event.finish.has_value();
    }
    Request reports = request_of(id++, 1);
    reports.sampling.prompt_logprobs = 0;
    reports.priority = -5;
    if (!ended) say({Submit{reports}});
  }
  if (output.back() == kEnd) output.pop_back();
  std::string expected;
  for (int i = 0; i < 20; ++i) expected += "abcdefgh";
  EXPECT_EQ(gpt2_tokenizer().decode(output), expected);
}

TEST_F(WorkerSession, CompilesSchemasBesideItsSteps) {
  std::vector<ToRanks> messages;
  for (int id = 1; id <= 100; ++id) messages.push_back(Submit{with_schema(id, id)});
  for (int id = 101; id <= 130; ++id) messages.push_back(Submit{with_schema(id, 7)});
  messages.push_back(Submit{with_schema(131, 5)});
  std::get<Submit>(messages.back()).request.constraint.rule = R"({"type": "nothing"})";
  messages.push_back(Submit{request_of(132, 5)});
  for (int id = 50; id <= 90; ++id) messages.push_back(Abort{id});
  say(messages);
  std::map<std::int64_t, std::vector<std::int32_t>> outputs;
  std::size_t ended = 0, refused = 0;
  while (ended + refused < 132 - 41) {
    const FromRanks message = next();
    if (const auto* refusal = std::get_if<Refused>(&message)) {
      EXPECT_EQ(refusal->id, 131);
      ++refused;
    }
    if (const auto* alive = std::get_if<Alive>(&message)) {
      EXPECT_GT(alive->silence_ms, 0);
    }
    if (const auto* tokens = std::get_if<NewTokens>(&message))
      for (const TokenEvent& event : tokens->events) {
        outputs[event.id].push_back(event.token);
        ended += event.finish.has_value();
      }
  }
  EXPECT_EQ(refused, 1u);
  for (const auto& [id, output] : outputs) {
    EXPECT_TRUE(id < 50 || id > 90) << id;
    if (id == 132 || output.back() != kEnd) continue;
    const std::string text = gpt2_tokenizer().decode({output.data(), output.size() - 1});
    const int schema = id <= 100 ? static_cast<int>(id) : 7;
    EXPECT_THAT(text, testing::AnyOf(testing::HasSubstr("\"one\""), testing::HasSubstr(std::to_string(schema)))) << id;
  }
}

}  // namespace
}  // namespace foe
