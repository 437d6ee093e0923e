// The reasoning of answers, as models write it and as clients get it.
#include "server/api/reasoning.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "server/api/recorded_reply.h"
#include "server/api/small_model.h"
#include "server/api/tool_syntax.h"
#include "server/http/api_error.h"

namespace foe {
namespace {

using enum ReasoningStart;
using nlohmann::json;
using testing::HasSubstr;

ReasoningUse reasoning_of(const char* syntax, ReasoningStart start) {
  return {reasoning_syntax_for(syntax, ""), start};
}

ToolUse hermes_tools() {
  return {.choice = ToolChoice::kAuto, .names = {"f"}, .syntax = tool_syntax_for("hermes", "")};
}

AnswerPart part_in_pieces(const ToolUse& tools, const ReasoningUse& use, const std::string& text, std::size_t size) {
  const std::unique_ptr<AnswerReader> reader = make_answer_reader(tools, use);
  AnswerPart part;
  for (std::size_t at = 0; at < text.size(); at += size) append(part, reader->push(text.substr(at, size)));
  append(part, reader->finish());
  EXPECT_EQ(reader->complete(), !part.calls.empty());
  return part;
}

// Returns reasoning, content and calls of a text, as in `reasoning` `content` f{...}, which must be the same however it
// is cut.
std::string parts_of(const ReasoningUse& use, const std::string& text) {
  static const ToolUse kTools = hermes_tools();
  const auto shown = [&](std::size_t size) {
    const AnswerPart part = part_in_pieces(kTools, use, text, size);
    std::string all = "`" + part.reasoning + "` `" + part.content + "`";
    for (const ToolCallPiece& call : part.calls) all += " " + call.name + call.arguments;
    return all;
  };
  const std::string whole = shown(text.size() + 1);
  for (std::size_t size = 1; size <= std::min<std::size_t>(text.size(), 20); ++size)
    EXPECT_EQ(shown(size), whole) << text << " in pieces of " << size;
  return whole;
}

TEST(Reasoning, IsBetweenItsMarks) {
  const auto read = [](const std::string& text) { return parts_of(reasoning_of("qwen3", kAtMark), text); };
  EXPECT_EQ(read("<think>\nWell, \n\n so\n</think>\n\nYes.\n"), "`Well, \n\n so` `Yes.\n`");
  EXPECT_EQ(read(" \n<think>a<think>b</think>c</think><think>d</think>"), "`a<think>b` `c</think><think>d</think>`");
  EXPECT_EQ(read("<think>\n\n</think>\n\n  Hi"), "`` `Hi`");
  EXPECT_EQ(read("<think>a </thin </think"), "`a </thin </think` ``");
  EXPECT_EQ(read("<think>a\n"), "`a\n` ``");
  EXPECT_EQ(read("<think>a</think> \n"), "`a` ``");
  for (const std::string text :
       {"", "Hi", " \n ", "<thin", " <thinking>a</thinking>", "Hi <think>a</think>", "</think>a"})
    EXPECT_EQ(read(text), "`` `" + text + "`");
}

TEST(Reasoning, MayBeginWithTheText) {
  const auto read = [](const std::string& text) { return parts_of(reasoning_of("deepseek_r1", kAtOnce), text); };
  EXPECT_EQ(read("Well.\n</think>\n\nYes."), "`Well.` `Yes.`");
  EXPECT_EQ(read("<think>\nWell.\n</think>Yes."), "`Well.` `Yes.`");
  EXPECT_EQ(read("</think>Yes."), "`` `Yes.`");
  EXPECT_EQ(read("Well. <think>"), "`Well. <think>` ``");
  EXPECT_EQ(read(" <thi"), "`<thi` ``");
  EXPECT_EQ(read(""), "`` ``");
  EXPECT_EQ(parts_of(reasoning_of("deepseek_r1", kNowhere), "<think>a</think>b"), "`` `<think>a</think>b`");
  EXPECT_EQ(parts_of(reasoning_of("mistral", kAtMark), "[THINK]a</think>[/THINK]b"), "`a</think>` `b`");
}

TEST(Reasoning, CallsAreReadBehindIt) {
  const auto read = [](const std::string& text) { return parts_of(reasoning_of("qwen3", kAtMark), text); };
  const std::string call = "<tool_call>{\"name\": \"f\"}</tool_call>";
  EXPECT_EQ(read("<think>" + call + "</think>\n" + call), "`" + call + "` `` f{}");
  EXPECT_EQ(read("<think>a</think>\nSo. " + call), "`a` `So.` f{}");
  EXPECT_EQ(read("<think>a " + call), "`a " + call + "` ``");
  EXPECT_EQ(read(call), "`` `` f{}");
}

// Some models write their content between marks, too.
TEST(Reasoning, MarksOfContentAreLeftOut) {
  const auto hunyuan = [](const std::string& text) { return parts_of(reasoning_of("hunyuan_a13b", kAtMark), text); };
  EXPECT_EQ(hunyuan("<think>\nWell.\n</think>\n<answer>\nYes.\n</answer>\n"), "`Well.` `Yes.`");
  EXPECT_EQ(hunyuan("<answer>\n a \n b </answer> <answer>c"), "`` `a \n b<answer>c`");
  EXPECT_EQ(hunyuan("<think>a</think> <answer>Yes</answ"), "`a` `Yes</answ`");
  EXPECT_EQ(hunyuan("<think>a</think>b</answer>"), "`a` `b</answer>`");
  EXPECT_EQ(hunyuan("<think>a</think><answer>So.<tool_call>{\"name\": \"f\"}</tool_call>\n</answer>"), "`a` `So.` f{}");
  EXPECT_EQ(hunyuan("<think>a</think><ans"), "`a` `<ans`");
  EXPECT_EQ(parts_of(reasoning_of("ernie45", kAtOnce), "abc\n</think>\n\n<response>\ndef\n</response>\n"),
            "`abc` `def`");
  EXPECT_EQ(parts_of(reasoning_of("ernie45", kAtOnce), "abc\n</think>\ndef"), "`abc` `def`");
  const std::string thought = "<|START_THINKING|>a<|END_THINKING|>";
  for (const char* name : {"cohere_command3", "cohere_command4"}) {
    EXPECT_EQ(parts_of(reasoning_of(name, kAtMark), thought + "<|START_RESPONSE|>b<|END_RESPONSE|>"), "`a` `b`");
    EXPECT_EQ(parts_of(reasoning_of(name, kNowhere), "<|START_RESPONSE|>b<|END_RESPONSE|>"), "`` `b`");
  }
  EXPECT_EQ(parts_of(reasoning_of("cohere_command4", kAtMark), thought + "<|START_TEXT|>b<|END_TEXT|>"), "`a` `b`");
}

TEST(Reasoning, MarksMayHaveSeveralForms) {
  const auto granite = [](const std::string& text) { return parts_of(reasoning_of("granite", kAtMark), text); };
  EXPECT_EQ(granite("Here is my thought process: a b\nHere is my response: c"), "`a b` `c`");
  EXPECT_EQ(granite("Here's my thought process:\na Here is my\n\nHere's my response:\n\nc"), "`a Here is my` `c`");
  EXPECT_EQ(granite("Here is my"), "`` `Here is my`");
  EXPECT_EQ(granite("Here is my answer."), "`` `Here is my answer.`");
  EXPECT_EQ(parts_of(reasoning_of("gemma4", kAtMark), "<|channel>thought\na\n<channel|>b"), "`a` `b`");
}

TEST(Reasoning, RequiredCallsAreReadBehindItToo) {
  const ToolUse tools{.choice = ToolChoice::kRequired, .names = {"f"}};
  const std::string calls = R"([{"name": "f", "parameters": {"a": 1}}])";
  for (const std::string& text : {"<think>[{" + calls + "</think>\n" + calls, calls})
    for (const std::size_t size : {1, 3, 100}) {
      const AnswerPart part = part_in_pieces(tools, reasoning_of("qwen3", kAtMark), text, size);
      EXPECT_EQ(part.reasoning, text == calls ? "" : "[{" + calls);
      EXPECT_EQ(part.content, "");
      ASSERT_EQ(part.calls.size(), 1u);
      EXPECT_EQ(part.calls[0].arguments, R"({"a": 1})");
    }
}

TEST(Reasoning, MayBeLeftOut) {
  const ReasoningUse use{reasoning_syntax_for("qwen3", ""), kAtMark, /*include=*/false};
  EXPECT_EQ(parts_of(use, "<think>a</think>b"), "`` `b`");
  EXPECT_EQ(parts_of(use, "<think>a"), "`` ``");
}

TEST(Reasoning, TheTemplateShowsHowItIsWritten) {
  const auto name = [](const char* source) {
    const ReasoningSyntax* syntax = reasoning_syntax_for("auto", source);
    return syntax ? std::string(syntax->name) : "none";
  };
  EXPECT_EQ(name("{% set c = m.content.split('</think>')[-1] %}"), "qwen3");
  EXPECT_EQ(name("{{ '<｜Assistant｜>' }}{{ c.split('</think>') }}"), "deepseek_r1");
  EXPECT_EQ(name("{{ '[THINK]' }}"), "mistral");
  EXPECT_EQ(name("{{ '<|channel|>analysis<|message|>' }}"), "openai_gptoss");
  EXPECT_EQ(name("<|START_THINKING|><|START_RESPONSE|>"), "cohere_command3");
  EXPECT_EQ(name("<|START_THINKING|><|START_TEXT|>"), "cohere_command4");
  EXPECT_EQ(name("{{ '<|channel>thought\\n' }}"), "gemma4");
  EXPECT_EQ(name("Write \"Here is my thought process:\" first"), "granite");
  EXPECT_EQ(name("<tool_calls>[{...}]</tool_calls>{{ '<think>\\n\\n</think>' }}"), "hunyuan_a13b");
  EXPECT_EQ(name("{{ '<response>\\n</response>' }}{{ '<think>' }}"), "ernie45");
  EXPECT_EQ(name("{{ m.content }}"), "none");
  EXPECT_EQ(reasoning_syntax_for("none", "</think>"), nullptr);
  EXPECT_EQ(reasoning_syntax_for("glm45", "[THINK]")->name, "glm45");
  EXPECT_THROW(reasoning_syntax_for("other", ""), Error);
}

ServedModel thinking_model(const char* syntax = "qwen3") {
  ServedModel m = small_model();
  m.max_positions = 4096;
  m.chat_template = ChatTemplate::parse(
      "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.reasoning_content }}\n{% endfor %}"
      "{% if add_generation_prompt %}assistant:{{ ending }}{% endif %}");
  m.reasoning = reasoning_syntax_for(syntax, "");
  return m;
}

GenerationRequest thinking_request(const std::string& fields, const ServedModel& model = thinking_model()) {
  return parse_chat_request(R"({"messages": [{"role": "user", "content": "<think>"}])" + fields + "}", model);
}

TEST(Reasoning, ThePromptMayBeginOrEndIt) {
  const auto start = [](const char* syntax, const std::string& kwargs) {
    return thinking_request(R"(, "chat_template_kwargs": {)" + kwargs + "}", thinking_model(syntax)).reasoning.start;
  };
  EXPECT_EQ(start("qwen3", ""), kAtMark);
  EXPECT_EQ(start("qwen3", R"("ending": "<think>\n")"), kAtOnce);
  EXPECT_EQ(start("qwen3", R"("ending": "<think>\n\n</think>\n\n")"), kNowhere);
  EXPECT_EQ(start("qwen3", R"("add_generation_prompt": false)"), kAtOnce);  // the template ends in <think>
  EXPECT_EQ(start("deepseek_r1", ""), kAtOnce);
  EXPECT_EQ(start("deepseek_r1", R"("enable_thinking": false)"), kAtMark);
  EXPECT_EQ(start("deepseek_r1", R"("thinking": false)"), kAtMark);
  EXPECT_EQ(start("deepseek_r1", R"("thinking": false, "ending": "<think>")"), kAtOnce);
  EXPECT_EQ(start("deepseek_r1", R"("ending": "</think>")"), kNowhere);
  EXPECT_EQ(start("none", R"("ending": "<think>")"), kNowhere);
}

TEST(Reasoning, MayBeInTheMessageThatGoesOn) {
  const auto start = [](const std::string& content) {
    return parse_chat_request(R"({"continue_final_message": true, "messages": [{"role": "assistant", "content": ")" +
                                  content + R"("}]})",
                              thinking_model("deepseek_r1"))
        .reasoning.start;
  };
  EXPECT_EQ(start("<think>Well"), kAtOnce);
  EXPECT_EQ(start("<think>Well</think>The"), kNowhere);
  EXPECT_EQ(start("The"), kNowhere);
}

// A tokenizer in which the marks are tokens, special ones or not, as models have both.
Tokenizer marking_tokenizer(const char* begin, const char* end, bool special) {
  json file = json::parse(std::ifstream(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json"));
  int id = 561;
  for (const char* name : {begin, end, "<|other|>"})
    file["added_tokens"].push_back({{"id", id++}, {"content", name}, {"special", special}, {"normalized", false}});
  return Tokenizer::from_json(file.dump());
}

// Where the marks are no tokens, a rule holds from the first token on.
TEST(Reasoning, IsOnlyWhatARuleAllows) {
  const auto start = [](const std::string& fields, const char* syntax = "deepseek_r1") {
    const GenerationRequest request = thinking_request(fields, thinking_model(syntax));
    EXPECT_EQ(request.reasoning_marks, ReasoningMarks());
    return request.reasoning.start;
  };
  const std::string tools = R"(, "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": )";
  EXPECT_EQ(start(R"(, "regex": "<think>a</think>b")"), kAtMark);
  EXPECT_EQ(start(R"(, "chat_template_kwargs": {"ending": "</think>"}, "regex": "a")"), kNowhere);
  EXPECT_EQ(start(tools + "\"auto\""), kAtOnce);
  EXPECT_EQ(start(tools + "\"required\""), kAtMark);
}

TEST(Reasoning, ARuleHoldsBehindItWhereMarksAreTokens) {
  const auto marks = [](const std::string& fields, const char* syntax) {
    ServedModel model = thinking_model(syntax);
    model.tokenizer = marking_tokenizer("<think>", "</think>", false);
    model.vocab_size = 564;
    const GenerationRequest request = thinking_request(fields, model);
    EXPECT_EQ(engine_requests(request, {0}).at(0).reasoning, request.reasoning_marks);
    return request.reasoning_marks;
  };
  const std::string closed = R"(, "chat_template_kwargs": {"ending": "</think>"})";
  const std::string tools = R"(, "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": )";
  EXPECT_EQ(marks("", "qwen3"), ReasoningMarks());
  EXPECT_EQ(marks(R"(, "regex": "a")", "qwen3"), (ReasoningMarks{561, 562, false}));
  EXPECT_EQ(marks(R"(, "regex": "a")", "deepseek_r1"), (ReasoningMarks{561, 562, true}));
  EXPECT_EQ(marks(tools + "\"required\"", "deepseek_r1"), (ReasoningMarks{561, 562, true}));
  EXPECT_EQ(marks(closed + R"(, "regex": "a")", "deepseek_r1"), ReasoningMarks());
  EXPECT_EQ(marks(R"(, "regex": "a")", "none"), ReasoningMarks());
}

TEST(Reasoning, IncludeReasoningIsRefusedWhereItIsNotRead) {
  EXPECT_TRUE(thinking_request("").reasoning.include);
  EXPECT_FALSE(thinking_request(R"(, "include_reasoning": false)").reasoning.include);
  EXPECT_TRUE(thinking_request(R"(, "include_reasoning": true)", thinking_model("none")).reasoning.include);
  try {
    thinking_request(R"(, "include_reasoning": false)", thinking_model("none"));
    FAIL() << "expected a refusal";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_EQ(error.param(), "include_reasoning");
    EXPECT_THAT(error.what(), HasSubstr("expected true, as this server does not read reasoning"));
  }
}

TEST(Reasoning, OfMessagesReachesTheTemplate) {
  const auto prompt = [](const std::string& message) {
    const auto request =
        parse_chat_request(R"({"messages": [{"role": "assistant", )" + message + "}]}", thinking_model());
    return gpt2_tokenizer().decode(request.prompts[0].tokens());
  };
  EXPECT_EQ(prompt(R"("content": "c", "reasoning_content": "r")"), "assistant: cr\nassistant:");
  EXPECT_EQ(prompt(R"("content": "c", "reasoning": "r")"), "assistant: cr\nassistant:");
  EXPECT_EQ(prompt(R"("content": "c", "reasoning": "no", "reasoning_content": "r")"), "assistant: cr\nassistant:");
  EXPECT_EQ(prompt(R"("content": "c", "reasoning": null, "reasoning_content": null)"), "assistant: c\nassistant:");
  EXPECT_EQ(prompt(R"("content": null, "reasoning": "r", "reasoning_content": "r")"), "assistant: r\nassistant:");
}

GenerationRequest request_that_thinks(const char* syntax, bool stream) {
  GenerationRequest request;
  request.api = Api::kChat;
  request.prompts.push_back({1, 2, 3});
  request.max_tokens = 100;
  request.stream = stream;
  request.include_usage = stream;
  request.reasoning = reasoning_of(syntax, kAtMark);
  return request;
}

// Gives each choice the tokens of the text; the last one is cut there, or followed by a token that ends it.
void give_all(Exchange& exchange, const Tokenizer& tokenizer, const std::string& text, FinishReason finish, int n = 1) {
  const auto ids = tokenizer.encode(text);
  for (int choice = 0; choice < n; ++choice) {
    bool ended = false;
    for (std::size_t i = 0; i < ids.size() && !ended; ++i) {
      const bool last = finish == FinishReason::kLength && i + 1 == ids.size();
      TokenEvent event{1, ids[i], last ? std::optional(finish) : std::nullopt};
      event.logprobs = LogprobEntry{-1, {}};
      ended = exchange.generation.take(choice, event);
    }
    if (!ended) exchange.generation.take(choice, {1, 0, finish});
  }
}

// Returns {"reasoning", "content", "finish_reason", "reasoning_tokens"} of the first choice of a whole answer. Both
// names of the reasoning say the same.
json whole_answer(const RecordedReply& reply) {
  const json body = json::parse(reply.responses.at(0).body), choice = body["choices"][0], message = choice["message"];
  EXPECT_EQ(message["reasoning"], message["reasoning_content"]);
  return {{"reasoning", message["reasoning_content"].is_null() ? "" : message["reasoning_content"]},
          {"content", message["content"].is_null() ? "" : message["content"]},
          {"finish_reason", choice["finish_reason"]},
          {"reasoning_tokens", body["usage"]["completion_tokens_details"]["reasoning_tokens"]}};
}

// The same of a stream.
json joined_answer(const RecordedReply& reply) {
  json answer{{"reasoning", ""}, {"content", ""}};
  for (const std::string& event : reply.events()) {
    if (event == "[DONE]") break;
    const json chunk = json::parse(event);
    if (chunk["choices"].empty()) {
      answer["reasoning_tokens"] = chunk["usage"]["completion_tokens_details"]["reasoning_tokens"];
      continue;
    }
    const json choice = chunk["choices"][0], delta = choice["delta"];
    EXPECT_EQ(delta.value("reasoning", ""), delta.value("reasoning_content", ""));
    answer["reasoning"] = answer["reasoning"].get<std::string>() + delta.value("reasoning_content", "");
    answer["content"] = answer["content"].get<std::string>() + delta.value("content", "");
    if (!choice["finish_reason"].is_null()) answer["finish_reason"] = choice["finish_reason"];
  }
  return answer;
}

// The answer to `text`, which must be the same in one piece and streamed.
json thinking_answer(const Tokenizer& tokenizer, GenerationRequest request, const std::string& text,
                     FinishReason finish) {
  request.stream = request.include_usage = false;
  Exchange whole(request, tokenizer);
  request.stream = request.include_usage = true;
  Exchange streamed(request, tokenizer);
  give_all(whole, tokenizer, text, finish);
  give_all(streamed, tokenizer, text, finish);
  const json answer = whole_answer(*whole.reply);
  EXPECT_EQ(joined_answer(*streamed.reply), answer);
  return answer;
}

TEST(Reasoning, ComesWithItsTokensCounted) {
  for (const bool special : {false, true}) {
    const Tokenizer tokenizer = marking_tokenizer("<think>", "</think>", special);
    const auto tokens = [&](const std::string& text) { return tokenizer.encode(text).size(); };
    const GenerationRequest request = request_that_thinks("qwen3", false);
    const std::string thought = "<think>\nWell, \xf0\x9f\x98\x80.\n</think>";
    EXPECT_EQ(thinking_answer(tokenizer, request, thought + "\n\nYes.", FinishReason::kStop),
              (json{{"reasoning", "Well, \xf0\x9f\x98\x80."},
                    {"content", "Yes."},
                    {"finish_reason", "stop"},
                    {"reasoning_tokens", tokens(thought)}}));
    // What max_tokens cuts is reasoning, and there is no content.
    EXPECT_EQ(thinking_answer(tokenizer, request, "<think>\nWell", FinishReason::kLength),
              (json{{"reasoning", "Well"},
                    {"content", ""},
                    {"finish_reason", "length"},
                    {"reasoning_tokens", tokens("<think>\nWell")}}));
    EXPECT_EQ(thinking_answer(tokenizer, request, "Yes.", FinishReason::kStop),
              (json{{"reasoning", ""}, {"content", "Yes."}, {"finish_reason", "stop"}, {"reasoning_tokens", 0}}));
  }
}

TEST(Reasoning, IsReadWhereMarksAreNoTokens) {
  const std::string text = "<think>So</think>Yes";
  const json answer = thinking_answer(gpt2_tokenizer(), request_that_thinks("qwen3", false), text, FinishReason::kStop);
  EXPECT_EQ(answer["reasoning"], "So");
  EXPECT_EQ(answer["content"], "Yes");
}

// Stop strings end the text, wherever they are.
TEST(Reasoning, MayEndAtAStopString) {
  const Tokenizer tokenizer = marking_tokenizer("<think>", "</think>", false);
  GenerationRequest request = request_that_thinks("qwen3", false);
  const auto read = [&](const std::string& text) {
    const json answer = thinking_answer(tokenizer, request, text, FinishReason::kStop);
    EXPECT_EQ(answer["finish_reason"], "stop");
    return answer["reasoning"].get<std::string>() + "|" + answer["content"].get<std::string>();
  };
  request.stop = {"END"};
  EXPECT_EQ(read("<think>We END</think>Yes"), "We |");
  EXPECT_EQ(read("<think>Well</think>Yes END no"), "Well|Yes ");
  request.stop = {"</think>"};
  EXPECT_EQ(read("<think>Well</think>Yes"), "Well|");
  request.include_stop = true;
  EXPECT_EQ(read("<think>Well</think>Yes"), "Well|");
  // A stop string that begins with the mark holds it back, which changes no count.
  request.stop = {"</think>No"};
  EXPECT_EQ(thinking_answer(tokenizer, request, "<think>a</think>Yes", FinishReason::kStop)["reasoning_tokens"],
            tokenizer.encode("<think>a</think>").size());
}

TEST(Reasoning, OfEachChoiceHasItsLogprobs) {
  const Tokenizer tokenizer = marking_tokenizer("<think>", "</think>", true);
  const std::string text = "<think>Well</think>Yes";
  for (const bool stream : {false, true}) {
    GenerationRequest request = request_that_thinks("qwen3", stream);
    request.n = 2;
    request.include_usage = false;
    request.sampling.logprobs = 0;
    Exchange exchange(request, tokenizer);
    give_all(exchange, tokenizer, text, FinishReason::kStop, 2);
    std::vector<std::string> tokens(2);
    const auto take = [&](const json& choice) {
      if (choice["logprobs"].is_null()) return;
      for (const json& token : choice["logprobs"]["content"])
        tokens[choice["index"]] += token["token"].get<std::string>();
    };
    if (stream) {
      for (const std::string& event : exchange.reply->events())
        if (event != "[DONE]") take(json::parse(event)["choices"][0]);
    } else {
      const json body = json::parse(exchange.reply->responses.at(0).body);
      for (const json& choice : body["choices"]) {
        EXPECT_EQ(choice["message"]["reasoning_content"], "Well");
        EXPECT_EQ(choice["message"]["content"], "Yes");
        take(choice);
      }
      EXPECT_EQ(body["usage"]["completion_tokens_details"]["reasoning_tokens"],
                2 * tokenizer.encode("<think>Well</think>").size());
    }
    for (const std::string& all : tokens) EXPECT_THAT(all, testing::StartsWith(text));
  }
}

TEST(Reasoning, LeftOutIsCountedAndNotNamed) {
  const Tokenizer tokenizer = marking_tokenizer("<think>", "</think>", false);
  for (const bool stream : {false, true}) {
    GenerationRequest request = request_that_thinks("qwen3", stream);
    request.reasoning.include = false;
    Exchange exchange(request, tokenizer);
    give_all(exchange, tokenizer, "<think>Well</think>Yes", FinishReason::kStop);
    const std::string reply = stream ? exchange.reply->stream : exchange.reply->responses.at(0).body;
    EXPECT_THAT(reply, testing::Not(HasSubstr("reasoning\"")));
    EXPECT_THAT(reply, testing::Not(HasSubstr("Well")));
    EXPECT_THAT(reply, HasSubstr("\"reasoning_tokens\":"));
    EXPECT_THAT(reply, testing::Not(HasSubstr("\"reasoning_tokens\":0")));
  }
}

// Without a syntax nothing of all this is in an answer.
TEST(Reasoning, IsNotNamedWhereItIsNotRead) {
  Exchange exchange(request_that_thinks("none", false));
  exchange.take(0, "<think>Well</think>Yes", FinishReason::kLength);
  const json body = json::parse(exchange.reply->responses.at(0).body);
  EXPECT_EQ(body["choices"][0]["message"], (json{{"role", "assistant"}, {"content", "<think>Well</think>Yes"}}));
  EXPECT_FALSE(body["usage"].contains("completion_tokens_details"));
}

}  // namespace
}  // namespace foe
