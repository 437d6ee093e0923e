// How many tokens are reported for each place of a prompt, where the server allows more than its default.
#include <gtest/gtest.h>

#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

TEST(PromptLogprobs, MayBeThoseOfTheWholeVocabulary) {
  ServedModel all = small_model();
  all.max_prompt_logprobs = all.vocab_size;
  // -2: it is refused, by this field's name.
  const auto most = [&](const char* value, int choices = 1) {
    try {
      const std::string body = fmt::format(R"({{"prompt": "x", "n": {}, "prompt_logprobs": {}}})", choices, value);
      return parse_completion_request(body, all).sampling.prompt_logprobs;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.param(), "prompt_logprobs");
      return -2;
    }
  };
  EXPECT_EQ(most("-1"), 561);
  EXPECT_EQ(most("561"), 561);
  EXPECT_EQ(most("562"), -2);
  // All that is named for a request is bounded: the token of a place itself, too.
  all.vocab_size = all.max_prompt_logprobs = static_cast<int>(kMaxPromptLogprobs) / 2 - 1;
  EXPECT_EQ(most("-1", 2), all.vocab_size);
  EXPECT_EQ(most("-1", 3), -2);
  all.vocab_size = ++all.max_prompt_logprobs;
  EXPECT_EQ(most("-1", 2), -2);
  EXPECT_EQ(most("-1", 1), all.vocab_size);
}

}  // namespace
}  // namespace foe
