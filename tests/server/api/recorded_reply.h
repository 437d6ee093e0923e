// An answer whose reply is kept, for tests.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/generation.h"
#include "server/api/tool_syntax.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {

// A request with one prompt of three tokens, whose reply has the form of `api`.
inline GenerationRequest request_of(Api api, bool stream, const ToolUse& tools, const ReasoningUse& reasoning) {
  GenerationRequest request;
  request.api = api;
  request.prompts.push_back({1, 2, 3});
  request.max_tokens = 100;
  request.stream = stream;
  request.tools = tools;
  request.reasoning = reasoning;
  return request;
}

// One tool, named f, whose calls are written as Hermes does.
inline ToolUse one_tool(ToolChoice choice) {
  return {.choice = choice, .names = {"f"}, .syntax = tool_syntax_for("hermes", "")};
}

// Keeps what was sent.
struct RecordedReply : HttpReply {
  void add_headers(std::string_view) override {}
  void send(HttpResponse response) override { responses.push_back(std::move(response)); }
  void begin_stream(const std::string& content_type) override { streamed = content_type; }
  void write(std::string_view piece) override { stream += piece; }
  void end() override { ended = true; }
  void when_gone(std::function<void()>) override {}

  // The data of each event, after a check of the framing. Events with a name, as other APIs than OpenAI's first ones
  // have them, say it in their data, too.
  std::vector<std::string> events() const {
    std::vector<std::string> all;
    std::string left = stream;
    while (!left.empty()) {
      const std::size_t end = left.find("\n\n");
      EXPECT_NE(end, std::string::npos) << left;
      std::string event = left.substr(0, end), name;
      if (event.starts_with("event: ")) {
        name = event.substr(7, event.find('\n') - 7);
        event.erase(0, event.find('\n') + 1);
      }
      EXPECT_THAT(event, testing::StartsWith("data: "));
      all.push_back(event.substr(6));
      EXPECT_EQ(all.back().find('\n'), std::string::npos);
      if (!name.empty()) {
        EXPECT_EQ(nlohmann::json::parse(all.back())["type"], name);
      }
      left.erase(0, end + 2);
    }
    return all;
  }

  std::vector<HttpResponse> responses;
  std::string streamed, stream;
  bool ended = false;
};

struct Exchange {
  std::shared_ptr<RecordedReply> reply = std::make_shared<RecordedReply>();
  Metrics metrics{"m"};
  Generation generation;

  explicit Exchange(const GenerationRequest& request, const Tokenizer& tokenizer = gpt2_tokenizer())
      : generation({request.api, request.api == Api::kResponses ? "resp_1" : "cmpl-1", "m", 1234}, request, tokenizer,
                   reply, metrics) {}

  // Gives choice `index` the tokens of `text`, the last one with `finish`. Whether the choice has ended.
  bool take(int index, const std::string& text, std::optional<FinishReason> finish) {
    const auto ids = gpt2_tokenizer().encode(text);
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (generation.take(index, {1, ids[i], i + 1 == ids.size() ? finish : std::nullopt})) return true;
    return false;
  }
};

}  // namespace foe
