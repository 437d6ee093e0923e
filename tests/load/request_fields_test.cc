#include "load/request_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace foe {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::string endpoint_text(const std::string& backend, const std::string& path) {
  const Endpoint e = endpoint_of(backend, path);
  return e.backend + " " + e.path + (e.chat ? " chat" : "");
}

TEST(Endpoint, FollowsFromTheBackendOrThePath) {
  EXPECT_EQ(endpoint_text("", ""), "openai /v1/completions");
  EXPECT_EQ(endpoint_text("vllm", ""), "vllm /v1/completions");
  EXPECT_EQ(endpoint_text("openai-chat", ""), "openai-chat /v1/chat/completions chat");
  EXPECT_EQ(endpoint_text("", "/x/chat/completions"), "openai-chat /x/chat/completions chat");
  EXPECT_EQ(endpoint_text("vllm", "/x/completions"), "vllm /x/completions");
  EXPECT_THAT([] { endpoint_of("openai-chat", "/v1/completions"); },
              ThrowsMessage<Error>(HasSubstr("expected one for chats with --backend openai-chat")));
  EXPECT_THAT([] { endpoint_of("openai", "/v1/chat/completions"); },
              ThrowsMessage<Error>(HasSubstr("expected one for completions with --backend openai")));
}

// The other names that vLLM's vllm/benchmarks/lib/endpoint_request_func.py has in ASYNC_REQUEST_FUNCS, and some that it
// once had.
TEST(Endpoint, RefusesOtherProtocols) {
  for (const char* backend :
       {"openai-audio", "openai-embeddings", "openai-embeddings-chat", "openai-embeddings-clip",
        "openai-embeddings-vlm2vec", "infinity-embeddings", "infinity-embeddings-clip", "vllm-pooling", "vllm-rerank",
        "tgi", "tensorrt-llm", "deepspeed-mii", "sglang", "OpenAI", "x"})
    EXPECT_THAT([&] { endpoint_of(backend, ""); },
                ThrowsMessage<Error>(HasSubstr("expected openai or vllm (completions), or openai-chat (chats), got '")))
        << backend;
}

TEST(Headers, AreLines) {
  EXPECT_EQ(header_line("x-a=1"), "x-a: 1\r\n");
  EXPECT_EQ(header_line(" X-B = a=b c "), "X-B: a=b c\r\n");
  EXPECT_EQ(header_line("x="), "x: \r\n");
  for (const char* bad : {"", "x", "=1", "a b=1", "a:b=1", "x=a\r\nHost: y", "x=\n", "x\n=1", "x=\x7f", "\xc3\xa4=1"})
    EXPECT_THAT([&] { header_line(bad); }, ThrowsMessage<Error>(HasSubstr("expected KEY=VALUE"))) << bad;
  for (const char* own :
       {"Host=x", "content-length=3", "Content-Type=a", "TRANSFER-ENCODING=chunked", "connection=close"})
    EXPECT_THAT([&] { header_line(own); }, ThrowsMessage<Error>(HasSubstr("does not send itself"))) << own;
  const std::string lines = header_line("X-A=authorization: 1") + header_line("AUTHORIZATION=Basic x");
  EXPECT_TRUE(has_header(lines, "authorization"));
  EXPECT_TRUE(has_header(lines, "x-a"));
  EXPECT_FALSE(has_header(header_line("X-A=authorization: 1"), "authorization"));
}

TEST(Fields, OfFlags) {
  RequestFields fields{.model = "m", .extra_body = ""};
  EXPECT_EQ(fields_json(fields, false), nlohmann::json::parse(R"({"model": "m", "temperature": 0.0, "stream": true,
                                                                  "stream_options": {"include_usage": true}})"));
  fields.sampling = {{"top_k", 5}, {"top_p", 0.5}};
  fields.logprobs = 3;
  fields.ignore_eos = true;
  const nlohmann::json completion = fields_json(fields, false), chat = fields_json(fields, true);
  EXPECT_TRUE(completion["top_k"].is_number_integer());
  EXPECT_EQ(completion["top_p"], 0.5);
  EXPECT_EQ(completion["ignore_eos"], true);
  EXPECT_EQ(completion["logprobs"], 3);
  EXPECT_EQ(chat["logprobs"], true);
  EXPECT_EQ(chat["top_logprobs"], 3);
  EXPECT_FALSE(completion.contains("temperature"));
  EXPECT_FALSE(completion.contains("top_logprobs"));
}

TEST(Fields, OfTheExtraBody) {
  const auto with = [](const std::string& extra) { return fields_json({.model = "m", .extra_body = extra}, false); };
  EXPECT_EQ(with(R"({"temperature": 1, "x": {"y": []}})")["temperature"], 1);
  EXPECT_EQ(with(R"({"x": {"y": []}})")["x"], nlohmann::json::parse(R"({"y": []})"));
  EXPECT_FALSE(has_length(with("{}")));
  EXPECT_TRUE(has_length(with(R"({"max_tokens": 3})")));
  EXPECT_TRUE(has_length(with(R"({"max_completion_tokens": 3})")));
  for (const char* bad : {"{", "3", "[]", R"({"a": 1, "a": 2})", R"({"prompt": "x"})", R"({"messages": []})",
                          R"({"stream": false})", R"({"stream": null})"})
    EXPECT_THAT([&] { with(bad); }, ThrowsMessage<Error>(HasSubstr("--extra-body"))) << bad;
}

}  // namespace
}  // namespace foe
