#include "load/load_generator.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

TEST(BaseUrl, Parts) {
  const auto parts = [](const std::string& url) {
    const HttpTarget target = parse_base_url(url);
    return target.host + " " + target.port + " " + target.path;
  };
  EXPECT_EQ(parts("http://localhost:8000"), "localhost 8000 ");
  EXPECT_EQ(parts("http://a.b/"), "a.b 80 ");
  EXPECT_EQ(parts("http://10.0.0.1:1/x/y/"), "10.0.0.1 1 /x/y");
  EXPECT_EQ(parts("http://[::1]:8000"), "::1 8000 ");
  EXPECT_EQ(parts("http://[::1]"), "::1 80 ");
  for (const char* bad :
       {"", "localhost:8000", "https://a", "http://", "http://:80", "http://a:", "http://a:x", "http://a:65536",
        "http://a:123456", "http://a b", "http://a\r\nX: y", "http://u@a", "http://a?b"})
    EXPECT_THROW(parse_base_url(bad), Error) << bad;
}

TEST(RequestBody, IdsTextAndChats) {
  LoadOptions options{.fields = R"({"model":"m","x":{}})"};
  EXPECT_EQ(request_body({.ids = {1, 23}, .output_tokens = 4}, options),
            R"({"model":"m","x":{},"prompt":[1,23],"max_tokens":4})");
  EXPECT_EQ(request_body({.ids = {}, .text = "a\"b\n", .output_tokens = 4}, options),
            R"({"model":"m","x":{},"prompt":"a\"b\n","max_tokens":4})");
  options.chat = true;
  options.fields = "{}";
  EXPECT_EQ(request_body({.ids = {}, .text = "hi", .output_tokens = 1}, options),
            R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":1})");
  options.fields = R"({"max_tokens":7})";
  options.length_in_fields = true;
  EXPECT_EQ(request_body({.ids = {}, .text = "hi", .output_tokens = 1}, options),
            R"({"max_tokens":7,"messages":[{"role":"user","content":"hi"}]})");
}

TEST(RequestHeaders, MayHaveAnId) {
  LoadOptions options{.headers = "X-A: 1\r\n"};
  EXPECT_EQ(request_headers(3, options), "X-A: 1\r\n");
  options.id_prefix = "run-";
  EXPECT_EQ(request_headers(3, options), "X-A: 1\r\nX-Request-Id: run-3\r\n");
}

}  // namespace
}  // namespace foe
