#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/generation_request.h"
#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

ServedModel chat_model() {
  ServedModel m = small_model();
  m.chat_template = ChatTemplate::parse(
      "{% if messages | length > 2 %}{{ raise_exception('expected at most two messages') }}{% endif %}"
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ suffix }}"
      "{% if add_generation_prompt %}assistant:{% endif %}");
  return m;
}

std::string chat_refusal(const std::string& body) {
  try {
    parse_chat_request(body, chat_model());
  } catch (const ApiError& error) {
    return fmt::format("{} [{}] {}", error.status(), error.param(), error.what());
  }
  return "accepted";
}

TEST(ChatRequest, GivesTheTemplateItsMessages) {
  const GenerationRequest r = parse_chat_request(
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}],
          "chat_template_kwargs": {"suffix": "!"}, "logprobs": true, "top_logprobs": 2, "max_completion_tokens": 5})",
      chat_model());
  EXPECT_EQ(r.api, Api::kChat);
  EXPECT_THAT(r.prompts, ElementsAre(gpt2_tokenizer().encode("user: hi\n!assistant:", {.add_special_tokens = false})));
  EXPECT_EQ(r.max_tokens, 5);
  EXPECT_EQ(r.sampling.logprobs, 2);
  EXPECT_EQ(r.sampling.prompt_logprobs, -1);
}

TEST(ChatRequest, MayContinueTheLastMessage) {
  const auto prompt = [](const std::string& content, const std::string& more) {
    return parse_chat_request(R"({"messages": [{"role": "assistant", "content": ")" + content +
                                  R"("}], "continue_final_message": true)" + more + "}",
                              chat_model())
        .prompts[0];
  };
  const auto ids = [](const std::string& text) { return gpt2_tokenizer().encode(text, {.add_special_tokens = false}); };
  EXPECT_EQ(prompt("It was ", "").tokens(), ids("assistant: It was "));
  EXPECT_EQ(prompt("It was", R"(, "add_generation_prompt": false)").tokens(), ids("assistant: It was"));
  const std::string one = R"({"messages": [{"role": "assistant", "content": ")";
  EXPECT_THAT(chat_refusal(one + R"(a"}], "continue_final_message": true, "add_generation_prompt": true})"),
              StartsWith("400 [continue_final_message] continue_final_message: expected it without"));
  EXPECT_THAT(chat_refusal(one + R"("}], "continue_final_message": true})"),
              StartsWith("400 [continue_final_message] continue_final_message: expected a last message with content"));
}

// As vLLM has it: of the role that the answer has.
TEST(ChatRequest, EchoesTheLastMessage) {
  const auto echoed = [](const std::string& last, const std::string& more) {
    return parse_chat_request(R"({"messages": [{"role": "user", "content": "u"}, )" + last + "]" + more + "}",
                              chat_model())
        .echoed;
  };
  const std::string answer = R"({"role": "assistant", "content": "An"})",
                    question = R"({"role": "user", "content": "q"})";
  EXPECT_EQ(echoed(answer, R"(, "echo": true, "continue_final_message": true)"), "An");
  EXPECT_EQ(echoed(answer, R"(, "echo": true)"), "An");
  EXPECT_EQ(echoed(answer, R"(, "echo": false, "continue_final_message": true)"), "");
  EXPECT_EQ(echoed(question, R"(, "echo": true)"), "");
  EXPECT_EQ(echoed(question, R"(, "echo": true, "add_generation_prompt": false)"), "q");
}

TEST(ChatRequest, MayFillTheContext) {
  const GenerationRequest r = parse_chat_request(R"({"messages": [{"role": "user", "content": "hi"}]})", chat_model());
  EXPECT_EQ(r.max_tokens + static_cast<int>(r.prompts[0].size()), 64);
}

TEST(ChatRequest, RefusesWrongMessages) {
  const auto messages = [](const std::string& value) {
    const std::string got = chat_refusal("{\"messages\": " + value + "}");
    const std::string start = "400 [messages] messages: ";
    return got.starts_with(start) ? got.substr(start.size()) : got;
  };
  EXPECT_EQ(chat_refusal("{}"), "400 [messages] messages: expected a list of messages, got none");
  EXPECT_EQ(messages("[]"), "expected a list of messages, got []");
  EXPECT_EQ(messages("\"hi\""), "expected a list of messages, got \"hi\"");
  EXPECT_EQ(messages("[1]"), "expected messages with a role, a string, got 1");
  EXPECT_EQ(messages(R"([{"content": "hi"}])"), R"(expected messages with a role, a string, got {"content":"hi"})");
  EXPECT_EQ(messages(R"([{"role": "user"}])"), R"(expected messages with content, got {"role":"user"})");
  EXPECT_EQ(messages(R"([{"role": "user", "content": 5}])"),
            "expected content to be a string or a list of parts, got 5");
  EXPECT_EQ(messages(R"([{"role": "user", "content": [{"type": "image_url"}]}])"),
            R"(expected parts of the type text, got {"type":"image_url"})");
  const std::string one = R"({"role": "user", "content": "hi"})";
  EXPECT_THAT(chat_refusal("{\"messages\": [" + one + "," + one + "," + one + "]}"),
              HasSubstr("expected at most two messages"));
  EXPECT_THAT(messages(R"([{"role": "user", "content": ")" + std::string(100, 'x') + "\"}]"),
              StartsWith("this model's maximum context length is 64 tokens, but "));
}

// Templates walk through arguments as an object; on the wire they are a text.
TEST(ChatRequest, GivesTheTemplateArgumentsDocumentsAndEffort) {
  ServedModel m = small_model();
  m.chat_template = ChatTemplate::parse(
      "{% for call in messages[0].tool_calls %}{{ call.function.arguments | tojson }}{% endfor %}"
      "{{ documents[0].text }}{{ reasoning_effort }}");
  const auto prompt = [&](const std::string& arguments) {
    return parse_chat_request(
               R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": )" +
                   arguments + R"(}}]}], "documents": [{"text": "d"}], "reasoning_effort": "low"})",
               m)
        .prompts[0];
  };
  const auto ids = [](const std::string& text) { return gpt2_tokenizer().encode(text, {.add_special_tokens = false}); };
  EXPECT_EQ(prompt(R"("{\"b\": 2, \"a\": 3}")").tokens(), ids(R"({"b": 2, "a": 3}dlow)"));
  EXPECT_EQ(prompt(R"({"b": 2, "a": 3})").tokens(), ids(R"({"b": 2, "a": 3}dlow)"));
  EXPECT_EQ(prompt(R"("")").tokens(), ids("{}dlow"));
  const auto refusal_of_arguments = [](const std::string& arguments) {
    return chat_refusal(R"({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": )" +
                        arguments + "}}]}]}");
  };
  EXPECT_THAT(refusal_of_arguments(R"("{")"),
              StartsWith("400 [messages] messages: expected arguments of a tool call to be JSON, got \"{\": "));
  EXPECT_EQ(refusal_of_arguments(R"("3")"),
            "400 [messages] messages: expected arguments of a tool call to be an object, got \"3\"");
  EXPECT_EQ(chat_refusal(R"({"messages": [{"role": "assistant", "tool_calls": [3]}]})"),
            "400 [messages] messages: expected tool_calls with a function, an object, got 3");
}

TEST(ChatRequest, RefusesWrongFields) {
  const auto with = [](const std::string& field) {
    return chat_refusal(R"({"messages": [{"role": "user", "content": "hi"}], )" + field + "}");
  };
  EXPECT_EQ(with(R"("logprobs": 3)"), "400 [logprobs] logprobs: expected true or false, got 3");
  EXPECT_EQ(with(R"("top_logprobs": 3)"), "400 [top_logprobs] top_logprobs: expected it only with logprobs = true");
  EXPECT_EQ(with(R"("echo": 1)"), "400 [echo] echo: expected true or false, got 1");
  EXPECT_EQ(with(R"("chat_template_kwargs": [])"),
            "400 [chat_template_kwargs] chat_template_kwargs: expected an object, got []");
}

TEST(ChatRequest, NeedsATemplate) {
  try {
    parse_chat_request(R"({"messages": [{"role": "user", "content": "hi"}]})", small_model());
    FAIL();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_THAT(error.what(), StartsWith("this model has no chat template"));
  }
}

}  // namespace
}  // namespace foe
