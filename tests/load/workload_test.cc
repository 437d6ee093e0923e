#include "load/workload.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "weights/temp_folder.h"

namespace foe {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::Le;

TEST(Paper, LengthsHaveThePapersMean) {
  const std::vector<Lengths> lengths = paper_lengths(20000, 1, 5);
  double sum = 0;
  int least = lengths[0].input, most = 0;
  for (const Lengths& l : lengths) {
    sum += l.input;
    least = std::min(least, l.input), most = std::max(most, l.input);
    ASSERT_EQ(l.output, 256);
  }
  // 9,000 but for what is cut at 32,512: E[(X - cut)+] is 207 tokens of NarrativeQA's log-normal (mean 14,128, sigma
  // 0.5), 2 of the others, and each task is a quarter. The standard deviation of a length is 5,540.
  EXPECT_NEAR(sum / 20000, 9000 - 209 / 4.0, 5 * 5540 / std::sqrt(20000));
  EXPECT_EQ(most, 32512);
  EXPECT_GT(least, 300);
  const std::vector<Lengths> scaled = paper_lengths(20000, 0.03125, 5);
  for (std::size_t i = 0; i < scaled.size(); ++i)
    ASSERT_EQ(scaled[i].input, static_cast<int>(std::round(lengths[i].input / 32.0)));
}

std::string folder() {
  return std::string(FOE_SOURCE_DIR) + "/models/foe-8m";
}

TEST(Workload, RandomIds) {
  const Vocabulary vocabulary = load_vocabulary(folder());
  WorkloadOptions options{.prompts = 50, .input_len = 20, .output_len = 10, .range_ratio = 0.5, .prefix_len = 4};
  const Workload workload = make_workload(options, vocabulary);
  ASSERT_EQ(workload.prompts.size(), 50u);
  EXPECT_THAT(workload.notes, ElementsAre());
  int shortest = 100, longest = 0;
  for (const WorkloadPrompt& p : workload.prompts) {
    ASSERT_EQ(p.ids.size(), static_cast<std::size_t>(p.tokens));
    EXPECT_TRUE(std::equal(p.ids.begin(), p.ids.begin() + 4, workload.prompts[0].ids.begin()));
    EXPECT_THAT(p.ids, Each(AllOf(Ge(0), testing::Lt(vocabulary.size))));
    EXPECT_THAT(p.output_tokens, AllOf(Ge(5), Le(15)));
    shortest = std::min(shortest, p.tokens), longest = std::max(longest, p.tokens);
    for (const std::int32_t id : p.ids) EXPECT_FALSE(vocabulary.tokenizer->is_special(id));
  }
  EXPECT_GE(shortest, 14);
  EXPECT_LE(longest, 34);
  EXPECT_LT(shortest, longest);
  EXPECT_EQ(make_workload(options, vocabulary).prompts[49].ids, workload.prompts[49].ids);
  options.seed = 1;
  EXPECT_NE(make_workload(options, vocabulary).prompts[49].ids, workload.prompts[49].ids);
}

TEST(Workload, WordsWithoutAVocabularyAndTextForChats) {
  const Workload words = make_workload({.prompts = 1, .input_len = 3}, {});
  EXPECT_EQ(std::ranges::count(words.prompts[0].text, ' '), 2);
  EXPECT_TRUE(words.prompts[0].ids.empty());
  EXPECT_EQ(words.prompts[0].output_tokens, 128);
  EXPECT_THAT(words.notes, ElementsAre(HasSubstr("random words")));
  Vocabulary vocabulary = load_vocabulary(folder());
  vocabulary.as_text = true;
  const Workload chat = make_workload({.prompts = 1, .input_len = 3}, vocabulary);
  EXPECT_TRUE(chat.prompts[0].ids.empty());
  EXPECT_NE(chat.prompts[0].text, "");
  vocabulary.tokenizer.reset();
  EXPECT_THROW(make_workload({.prompts = 1}, vocabulary), Error);
}

TEST(Workload, FitsTheContextAndSaysSo) {
  const Workload cut = make_workload({.prompts = 3, .input_len = 90, .output_len = 20, .context = 100}, {});
  for (const WorkloadPrompt& p : cut.prompts) EXPECT_EQ(p.tokens + p.output_tokens, 100);
  EXPECT_THAT(cut.notes,
              testing::Contains("3 of 3 prompts are cut, to fit with their outputs into the model's context of 100"));
  const Workload halves = make_workload({.preset = "paper", .prompts = 3, .context = 200}, {});
  for (const WorkloadPrompt& p : halves.prompts) EXPECT_EQ(p.tokens, p.output_tokens);
  EXPECT_THAT(halves.notes, testing::Contains(HasSubstr("3 of 3 outputs are cut to 100 tokens")));
}

TEST(Workload, RefusesWhatItWouldIgnore) {
  for (const WorkloadOptions& options :
       {WorkloadOptions{.path = "/x"}, WorkloadOptions{.preset = "paper", .input_len = 1024},
        WorkloadOptions{.dataset = "custom", .path = "/x", .input_len = 1024},
        WorkloadOptions{.path = "/x", .preset = "paper"}, WorkloadOptions{.preset = "paper", .range_ratio = 0.5},
        WorkloadOptions{.preset = "paper", .prefix_len = 1},
        WorkloadOptions{.dataset = "custom", .path = "/x", .prefix_len = 1}, WorkloadOptions{.scale = 2},
        WorkloadOptions{.shuffled = false}, WorkloadOptions{.dataset = "trace", .path = "/x", .shuffled = false}})
    EXPECT_THAT([&] { make_workload(options, {}); },
                testing::ThrowsMessage<Error>(AllOf(HasSubstr("expected it with"), HasSubstr("got it with"))));
}

TEST(Workload, RefusesWhatIsNotThere) {
  for (const char* dataset : {"custom", "sharegpt", "longbench", "trace"}) {
    EXPECT_THROW(make_workload({.dataset = dataset}, {}), Error);
    EXPECT_THROW(make_workload({.dataset = dataset, .path = "/nowhere"}, {}), Error);
    EXPECT_THROW(make_workload({.dataset = dataset, .path = "/"}, {}), Error);
  }
}

// --- files ---

template <typename Parse>
std::string error_of(Parse parse, const std::string& text) {
  try {
    parse(text, "FILE");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Files, Custom) {
  const auto prompts =
      parse_custom("{\"prompt\": \"a\"}\r\n\n{\"prompt\": \"b\", \"output_tokens\": 7, \"x\": []}", "FILE");
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].prompt, "a");
  EXPECT_EQ(prompts[0].output_tokens, 0);
  EXPECT_EQ(prompts[1].output_tokens, 7);
  EXPECT_TRUE(parse_custom("", "FILE").empty());
  for (const char* bad :
       {"{", "3", "[]", "{}", R"({"prompt": 3})", R"({"prompt": "a", "output_tokens": -1})",
        R"({"prompt": "a", "output_tokens": 1e300})", R"({"prompt": "a", "output_tokens": 1.5})",
        R"({"prompt": "a", "output_tokens": "1"})", "{\"prompt\": \"\xff\"}", R"({"prompt": "a", "prompt": "b"})"})
    EXPECT_THAT(error_of(parse_custom, std::string("{\"prompt\": \"a\"}\n") + bad), HasSubstr("FILE line 2: expected"))
        << bad;
}

TEST(Files, ShareGpt) {
  const auto prompts = parse_sharegpt(
      R"([{"id": "1", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {}]},
          {"conversations": [{"value": "alone"}]}, {"conversations": []},
          {"conversations": [{"value": ""}, {"value": "a"}]}])",
      "FILE");
  ASSERT_EQ(prompts.size(), 1u);
  EXPECT_EQ(prompts[0].prompt, "q");
  EXPECT_EQ(prompts[0].answer, "a");
  for (const char* bad : {"", "{}", "[3]", "[{}]", R"([{"conversations": 3}])", R"([{"conversations": [1, 2]}])",
                          R"([{"conversations": [{"value": 1}, {"value": "a"}]}])"})
    EXPECT_THAT(error_of(parse_sharegpt, bad), AllOf(HasSubstr("FILE"), HasSubstr("expected"))) << bad;
}

TEST(Files, LongBench) {
  const auto prompts =
      parse_longbench(R"({"context": "long", "input": "why?", "length": 3, "answers": ["x"]})", "FILE");
  ASSERT_EQ(prompts.size(), 1u);
  EXPECT_EQ(prompts[0].prompt, "long\n\nwhy?");
  EXPECT_THAT(error_of(parse_longbench, R"({"context": "long"})"),
              "FILE line 1: expected a string \"input\", got none");
}

MATCHER_P3(LengthsAre, input, output, at, "") {
  return arg.input == input && arg.output == output && std::abs(arg.at - at) < 1e-6;
}

TEST(Files, Traces) {
  EXPECT_THAT(parse_trace("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\r\n"
                          "2023-11-17 00:00:00.25,3180,8\n",
                          "FILE"),
              ElementsAre(LengthsAre(4808, 10, 0), LengthsAre(3180, 8, 20576.27004)));
  EXPECT_THAT(parse_trace("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                          "45,ChatGPT,1087,230,1317,Conversation log\n5,ChatGPT,472,18,490,Conversation log\n"
                          "6,GPT-4,300,0,300,API log\n",
                          "FILE"),
              ElementsAre(LengthsAre(472, 18, 0), LengthsAre(1087, 230, 40)));
  EXPECT_THAT(parse_trace("{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46]}\n"
                          "{\"timestamp\": 30535, \"input_length\": 6472, \"output_length\": 26}\n",
                          "FILE"),
              ElementsAre(LengthsAre(6955, 52, 0), LengthsAre(6472, 26, 3.053)));
  EXPECT_THAT(parse_trace("", "FILE"), ElementsAre());
  const std::string header = "timestamp,input_tokens,output_tokens\n";
  for (const char* bad : {"1,2", "1,2,3,4", "x,2,3", "nan,2,3", "inf,2,3", "1,-2,3", "1,2.5,3", "1,1e12,3", "1,2,",
                          "2023-13-16 18:17:03,1,1", "2023-02-30 18:17:03,1,1", "2023-11-16 25:17:03,1,1",
                          "2023-11-16 18:17:xx,1,1", "-,1,1", "--------------------,1,1"})
    EXPECT_THAT(error_of(parse_trace, header + bad), HasSubstr("FILE line 2: expected")) << bad;
  EXPECT_THAT(error_of(parse_trace, "a,b\n"), HasSubstr("FILE line 1: expected a column"));
  EXPECT_THAT(error_of(parse_trace, "{\"timestamp\": \"now\"}"), HasSubstr("FILE line 1: expected a number"));
}

TEST(Files, AreShuffledUnlessTheyMustNotBe) {
  const TempFolder folder;
  std::string lines;
  for (int i = 0; i < 50; ++i) lines += R"({"context": ")" + std::to_string(i) + "\", \"input\": \"?\"}\n";
  folder.write("bench.jsonl", lines);
  WorkloadOptions options{.dataset = "longbench", .path = folder / "bench.jsonl", .shuffled = false};
  const auto texts = [&] {
    std::vector<std::string> out;
    for (const WorkloadPrompt& prompt : make_workload(options, {}).prompts) out.push_back(prompt.text);
    return out;
  };
  const std::vector<std::string> in_order = texts();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(in_order[i], std::to_string(i) + "\n\n?");
  options.shuffled = true;
  EXPECT_NE(texts(), in_order);
  EXPECT_THAT(texts(), testing::UnorderedElementsAreArray(in_order));
}

TEST(Files, ATraceIsAWorkload) {
  const TempFolder folder;
  folder.write("trace.csv", "timestamp,input_tokens,output_tokens\n10,40,20\n14,80,4\n15,1,1\n");
  const Workload workload =
      make_workload({.dataset = "trace", .path = folder / "trace.csv", .prompts = 2, .scale = 0.5}, {});
  EXPECT_THAT(workload.times, ElementsAre(0, 2));
  EXPECT_EQ(workload.prompts[1].tokens, 40);
  EXPECT_EQ(workload.prompts[1].output_tokens, 2);
}

}  // namespace
}  // namespace foe
