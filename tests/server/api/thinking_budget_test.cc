// The field thinking_token_budget of chats.
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/small_model.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using testing::HasSubstr;

// The marks are tokens 561 and 562, or none.
ServedModel budget_model(const char* syntax, bool marks = true) {
  ServedModel m = small_model();
  m.max_positions = 4096;
  m.chat_template = ChatTemplate::parse("{% for m in messages %}{{ m.content }}{% endfor %}{{ ending }}");
  m.reasoning = reasoning_syntax_for(syntax, "");
  if (!marks) return m;
  nlohmann::json file = nlohmann::json::parse(std::ifstream(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json"));
  for (const char* name : {"<think>", "</think>"})
    file["added_tokens"].push_back(
        {{"id", name[1] == '/' ? 562 : 561}, {"content", name}, {"special", false}, {"normalized", false}});
  m.tokenizer = Tokenizer::from_json(file.dump());
  m.vocab_size = 563;
  return m;
}

GenerationRequest budget_request(const std::string& fields, const ServedModel& model) {
  return parse_chat_request(R"({"messages": [{"role": "user", "content": "hi"}])" + fields + "}", model);
}

TEST(ThinkingBudget, IsKeptBesideTheMarks) {
  const auto marks = [](const char* syntax, const std::string& fields) {
    return budget_request(R"(, "thinking_token_budget": 7)" + fields, budget_model(syntax)).reasoning_marks;
  };
  EXPECT_EQ(marks("deepseek_r1", ""), (ReasoningMarks{561, 562, true, 7}));
  EXPECT_EQ(marks("qwen3", R"(, "regex": "a")"), (ReasoningMarks{561, 562, false, 7}));
  EXPECT_EQ(marks("deepseek_r1", R"(, "chat_template_kwargs": {"ending": "</think>"})"), ReasoningMarks());  // no need
}

TEST(ThinkingBudget, NeedsMarksThatAreTokens) {
  const auto refusal_of_budget = [](const char* budget, const char* syntax) -> std::string {
    try {
      budget_request(fmt::format(R"(, "thinking_token_budget": {})", budget), budget_model(syntax, false));
    } catch (const ApiError& error) {
      EXPECT_EQ(error.param(), "thinking_token_budget");
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal_of_budget("5", "none"), HasSubstr("this server does not read reasoning"));
  EXPECT_THAT(refusal_of_budget("5", "qwen3"), HasSubstr("<think> and </think>, which this model writes"));
  EXPECT_THAT(refusal_of_budget("5", "openai_gptoss"), HasSubstr("are no tokens of it"));
  for (const char* bad : {"-1", "1.5", "\"5\"", "4097"})
    EXPECT_THAT(refusal_of_budget(bad, "qwen3"), HasSubstr("expected an integer from 0 to 4096"));
}

}  // namespace
}  // namespace foe
