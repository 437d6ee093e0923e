// Answers of gpt-oss.
#include "server/api/harmony.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "server/api/recorded_reply.h"
#include "server/api/small_model.h"
#include "server/api/tool_syntax.h"

namespace foe {
namespace {

using nlohmann::json;

const std::string kAnalysis = "<|channel|>analysis<|message|>", kFinal = "<|channel|>final<|message|>";
const std::string kNext = "<|end|><|start|>assistant";
const std::string kCallOfF = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>";

ToolUse harmony_tools() {
  return {.choice = ToolChoice::kAuto, .names = {"f", "get-it"}, .syntax = tool_syntax_for("openai", "")};
}

ReasoningUse harmony_reasoning(ReasoningStart start = ReasoningStart::kAtMark) {
  return {reasoning_syntax_for("openai_gptoss", ""), start};
}

struct HarmonyAnswer {
  AnswerPart part;
  std::vector<std::string> reasoning;  // the spans of the text that are
};

HarmonyAnswer harmony_in_pieces(const ToolUse& tools, const ReasoningUse& use, const std::string& text,
                                std::size_t size) {
  const std::unique_ptr<AnswerReader> reader = make_answer_reader(tools, use);
  HarmonyAnswer answer;
  for (std::size_t at = 0; at < text.size(); at += size) append(answer.part, reader->push(text.substr(at, size)));
  append(answer.part, reader->finish());
  for (const TextSpan& span : reader->reasoning_spans())
    answer.reasoning.push_back(text.substr(span.begin, span.end - span.begin));
  EXPECT_EQ(reader->complete(), !answer.part.calls.empty());
  return answer;
}

// Returns reasoning, content and calls, as in `reasoning` `content` f{...}, which must be the same however the text is
// cut.
std::string harmony_parts(const std::string& text, const ToolUse& tools = harmony_tools(),
                          const ReasoningUse& use = harmony_reasoning()) {
  const auto shown = [&](std::size_t size) {
    const AnswerPart part = harmony_in_pieces(tools, use, text, size).part;
    std::string all = "`" + part.reasoning + "` `" + part.content + "`";
    for (const ToolCallPiece& call : part.calls) all += " " + call.name + call.arguments;
    return all;
  };
  const std::string whole = shown(text.size() + 1);
  for (std::size_t size = 1; size <= std::min<std::size_t>(text.size(), 40); ++size)
    EXPECT_EQ(shown(size), whole) << text << " in pieces of " << size;
  return whole;
}

TEST(Harmony, HasChannels) {
  EXPECT_EQ(harmony_parts(kAnalysis + "Hm.\n" + kNext + kFinal + " Yes\n"), "`Hm.\n` ` Yes\n`");
  EXPECT_EQ(harmony_parts(kFinal + "Yes<|return|>"), "`` `Yes`");
  EXPECT_EQ(harmony_parts(kAnalysis + "a" + kNext + kAnalysis + "b" + kNext + "<|channel|>commentary<|message|>c" +
                          kNext + kFinal + "d"),
            "`a\nb` `c\nd`");
  EXPECT_EQ(harmony_parts(kAnalysis + "cut"), "`cut` ``");
  EXPECT_EQ(harmony_parts(kAnalysis + "a" + kNext + "<|channel|>fin"), "`a` ``");
  EXPECT_EQ(harmony_parts(kAnalysis + "a" + kFinal + "b"), "`a` `b`");  // without its end
  EXPECT_EQ(harmony_parts(kAnalysis + kNext + kFinal + "a <|b"), "`` `a <|b`");
  EXPECT_EQ(harmony_parts("<|channel|>analysis to=browser.search<|message|>{}<|call|>"), "`{}` ``");
}

TEST(Harmony, HasCalls) {
  EXPECT_EQ(harmony_parts(kAnalysis + "Hm." + kNext + kCallOfF + "{\"a\": \"<|\"}<|call|>"),
            R"(`Hm.` `` f{"a": "<|"})");
  EXPECT_EQ(harmony_parts(kAnalysis + "Hm." + kNext + kCallOfF + "{}"), "`Hm.` `` f{}");  // <|call|> ends the answer
  EXPECT_EQ(harmony_parts("<|start|>assistant to=functions.get-it<|channel|>commentary json<|message|> {} <|call|>" +
                          kCallOfF + "<|call|>"),
            "`` `` get-it{} f{}");
  EXPECT_EQ(harmony_parts(" to=functions.f<|channel|>commentary<|message|>{\"b\": 2}"), R"(`` `` f{"b": 2})");
  // One that is cut is not there, and is no content either.
  EXPECT_EQ(harmony_parts(kCallOfF + "{}<|call|>" + kCallOfF + " {\"a\": \"}"), "`` `` f{}");
  EXPECT_EQ(harmony_parts(kCallOfF + " {"), "`` ``");
  // What is no call is content.
  EXPECT_EQ(harmony_parts(kCallOfF + "{\"a\": <|call|>"), "`` `{\"a\": `");
  EXPECT_EQ(harmony_parts("<|channel|>commentary to=functions.h<|message|>{}<|call|>"), "`` `{}`");
  EXPECT_EQ(harmony_parts(kCallOfF + "{}", {}), "`` `{}`");
  ToolUse one = harmony_tools();
  one.parallel = false;
  EXPECT_EQ(harmony_parts(kCallOfF + "{}<|call|>" + kCallOfF + "{\"a\": 1}", one), "`` `` f{}");
}

TEST(Harmony, OtherTextsAreContent) {
  for (const std::string text :
       {"", " \n", "Hi <|channel|>", "to be", "to=me", "{\"a\": 1}", "<|other|>", "<|chan", "<"})
    EXPECT_EQ(harmony_parts(text), "`` `" + text + "`");
}

TEST(Harmony, MayBeginInItsReasoning) {
  const ReasoningUse open =
      harmony_reasoning(reasoning_start(*harmony_reasoning().syntax, "<|start|>assistant" + kAnalysis));
  EXPECT_EQ(harmony_parts("Hm." + kNext + kFinal + "Yes", harmony_tools(), open), "`Hm.` `Yes`");
  EXPECT_EQ(reasoning_start(*open.syntax, "<|start|>assistant"), ReasoningStart::kAtMark);
  EXPECT_EQ(reasoning_start(*open.syntax, kFinal), ReasoningStart::kNowhere);
}

TEST(Harmony, SaysWhichTextIsReasoning) {
  const std::string first = kAnalysis + "a<|end|>", second = "<|start|>assistant" + kAnalysis + "b<|end|>";
  const std::string text = first + "<|start|>assistant" + kFinal + "c<|end|>" + second;
  for (std::size_t size = 1; size <= text.size(); ++size)
    EXPECT_THAT(harmony_in_pieces(harmony_tools(), harmony_reasoning(), text, size).reasoning,
                testing::ElementsAre(first, second));
  ReasoningUse without = harmony_reasoning();
  without.include = false;
  EXPECT_EQ(harmony_parts(text, harmony_tools(), without), "`` `c`");
}

TEST(Harmony, IsReadByItsTokens) {
  json file = json::parse(std::ifstream(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json"));
  int id = 561;
  for (const std::string_view name : harmony_markers())
    file["added_tokens"].push_back({{"id", id++}, {"content", name}, {"special", true}, {"normalized", false}});
  const Tokenizer tokenizer = Tokenizer::from_json(file.dump());
  const std::string analysis = kAnalysis + "Hm.<|end|>";
  GenerationRequest request;
  request.api = Api::kChat;
  request.prompts.push_back({1, 2, 3});
  request.max_tokens = 100;
  request.tools = harmony_tools();
  request.reasoning = harmony_reasoning();
  Exchange exchange(request, tokenizer);
  for (const std::int32_t token : tokenizer.encode(analysis + "<|start|>assistant" + kCallOfF + "{\"a\": 1}"))
    exchange.generation.take(0, {1, token});
  exchange.generation.take(0, {1, *tokenizer.token_to_id("<|call|>"), FinishReason::kStop});
  const json body = json::parse(exchange.reply->responses.at(0).body), choice = body["choices"][0];
  EXPECT_EQ(choice["message"]["reasoning_content"], "Hm.");
  EXPECT_EQ(choice["message"]["content"], nullptr);
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"], (json{{"name", "f"}, {"arguments", "{\"a\": 1}"}}));
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(body["usage"]["completion_tokens_details"]["reasoning_tokens"], tokenizer.encode(analysis).size());
}

// The template of gpt-oss has the reasoning before a call under a name of its own, and refuses content beside it.
TEST(Harmony, GivesItsTemplateTheReasoningOfCalls) {
  ServedModel model = small_model();
  model.max_positions = 4096;
  model.reasoning = harmony_reasoning().syntax;
  model.chat_template = ChatTemplate::parse(
      "{% for m in messages %}{% if '<|' in m.content %}{% endif %}{{ m.content }},{{ m.thinking }};{% endfor %}");
  const auto prompt = [&](const std::string& message) {
    const GenerationRequest request =
        parse_chat_request(R"({"messages": [{"role": "assistant", )" + message + "}]}", model);
    return gpt2_tokenizer().decode(request.prompts[0].tokens());
  };
  const std::string calls = R"("tool_calls": [{"function": {"name": "f", "arguments": "{}"}}])";
  EXPECT_EQ(prompt(R"("content": null, "reasoning_content": "r", )" + calls), ",r;");
  EXPECT_EQ(prompt(R"("reasoning": "r", )" + calls), ",r;");
  EXPECT_EQ(prompt(R"("content": "c", "reasoning_content": "r", )" + calls), "c,;");
  EXPECT_EQ(prompt(R"("content": "c", "reasoning_content": "r")"), "c,;");
}

}  // namespace
}  // namespace foe
