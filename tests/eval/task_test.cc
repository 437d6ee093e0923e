#include "eval/task.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace foe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Question only(const std::string& task, const std::string& item, const std::string& labels = {}) {
  return parse_task(task, item, "file", labels, "labels").questions.at(0);
}

std::string refusal(const std::string& task, const std::string& text, const std::string& labels = {}) {
  try {
    parse_task(task, text, "file", labels, "labels");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Task, ArcEasyInItsAuthorsFormAndInHuggingFacesAreTheSame) {
  const Question authors = only(
      "arc_easy",
      R"({"id":"x","question":{"stem":"Why?","choices":[{"text":"So","label":"A"},{"text":"Not","label":"B"}]},"answerKey":"B"})");
  const Question others =
      only("arc_easy", R"({"question":"Why?","choices":{"text":["So","Not"],"label":["1","2"]},"answerKey":"2"})");
  EXPECT_EQ(authors.context, "Question: Why?\nAnswer:");
  EXPECT_THAT(authors.choices, ElementsAre("So", "Not"));
  EXPECT_EQ(authors.answer, 1);
  EXPECT_EQ(others.context, authors.context);
  EXPECT_EQ(others.choices, authors.choices);
  EXPECT_EQ(others.answer, 1);
}

TEST(Task, BoolqTakesAnswerOrLabel) {
  for (const char* answer : {R"("answer":true)", R"("label":true)", R"("label":1)", R"("label":"1")"}) {
    const Question q = only("boolq", R"({"question":"is it","passage":"It is.",)" + std::string(answer) + "}");
    EXPECT_EQ(q.context, "It is.\nQuestion: is it?\nAnswer:");
    EXPECT_THAT(q.choices, ElementsAre("no", "yes"));
    EXPECT_EQ(q.answer, 1) << answer;
  }
}

TEST(Task, CopaJoinsTheSentences) {
  const Question q = only(
      "copa", R"({"premise":" It broke. ","choice1":"He fell.","choice2":"Éric fell.","question":"cause","label":1})");
  EXPECT_EQ(q.context, "It broke because");
  EXPECT_THAT(q.choices, ElementsAre(" he fell.", " éric fell."));
  EXPECT_EQ(q.answer, 1);
}

TEST(Task, HellaswagIsCleaned) {
  const Question q =
      only("hellaswag", R"({"activity_label":"Home","ctx_a":"[header] How [title] Begin. ",)"
                        R"("ctx_b":"the KING's","endings":[" [step] dog [title] Then","a  b"],"label":"0"})");
  EXPECT_EQ(q.context, "Home: How. Begin. The king's");
  EXPECT_THAT(q.choices, ElementsAre(" dog. Then", "a b"));
}

TEST(Task, PiqaTakesLabelsInItemsOrFromAFileOfTheirOwn) {
  const std::string item = R"({"goal":"Go","sol1":"a","sol2":"b")";
  EXPECT_EQ(only("piqa", item + R"(,"label":1})").answer, 1);
  EXPECT_EQ(only("piqa", item + "}\n", "1\n").answer, 1);
  EXPECT_THAT(refusal("piqa", item + "}"), HasSubstr("file line 1.label: expected an integer, got null"));
  EXPECT_THAT(refusal("piqa", item + "}\n" + item + "}\n", "1\n"),
              HasSubstr("labels: expected a label for each item of file, got 1 labels"));
  EXPECT_THAT(refusal("piqa", item + "}", "1\n0\n"),
              HasSubstr("labels: expected 1 labels, one for each item of file, got 2"));
  EXPECT_THAT(refusal("piqa", item + "}", "2\n"), HasSubstr("labels line 1: expected 0 or 1, got '2'"));
  EXPECT_THAT(refusal("piqa", item + R"(,"label":1})", "1\n"), HasSubstr("file line 1: expected no \"label\""));
}

TEST(Task, ReadsTheLabelsBesideAFileOfPiqa) {
  const std::filesystem::path dir = std::filesystem::path(testing::TempDir()) / "piqa_labels";
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "valid.jsonl") << R"({"goal":"Go","sol1":"a","sol2":"b"})";
  std::ofstream(dir / "valid-labels.lst") << "1\n";
  EXPECT_EQ(load_task("piqa", dir / "valid.jsonl").questions.at(0).answer, 1);
  std::filesystem::remove_all(dir);
}

TEST(Task, SciqIsAnArrayWhoseRightAnswerIsTheLast) {
  const Task task = parse_task(
      "sciq",
      R"([{"question":"Q","distractor1":"a","distractor2":"b","distractor3":"c","correct_answer":"d","support":"\n S"}])",
      "file");
  EXPECT_EQ(task.questions.at(0).context, "S\nQuestion: Q\nAnswer:");
  EXPECT_THAT(task.questions[0].choices, ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ(task.questions[0].answer, 3);
}

TEST(Task, CountsRepeatedQuestions) {
  const std::string item = R"({"goal":"Go","sol1":"a","sol2":"b","label":0})";
  const std::string other = R"({"goal":"Go","sol1":"b","sol2":"a","label":0})";
  EXPECT_EQ(parse_task("piqa", item + "\n" + other + "\n\n" + item + "\n", "file").repeated, 1u);
}

// Each says the place, what was expected and what was found.
TEST(Task, RefusesDamagedFiles) {
  const std::string good = R"({"goal":"Go","sol1":"a","sol2":"b","label":0})";
  EXPECT_EQ(refusal("piqa", ""), "file: expected at least one item, got none");
  EXPECT_EQ(refusal("piqa", "[]"), "file: expected at least one item, got none");
  EXPECT_THAT(refusal("piqa", good + "\n{\"goal\": \"Go"), HasSubstr("file line 2"));
  EXPECT_EQ(refusal("piqa", good + "\n[1]"), "file line 2: expected a JSON object, got [1]");
  EXPECT_EQ(refusal("piqa", "[3]"), "file item 1: expected a JSON object, got 3");
  EXPECT_EQ(refusal("piqa", R"({"goal":7,"sol1":"a","sol2":"b","label":0})"),
            "file line 1.goal: expected a string, got 7");
  EXPECT_EQ(refusal("piqa", R"({"goal":"Go","sol1":"  ","sol2":"b","label":0})"),
            "file line 1.sol1: expected a text, got \"  \"");
  EXPECT_EQ(refusal("piqa", R"({"goal":"Go","sol1":"a","sol2":"b","label":2})"),
            "file line 1.label: expected 0 to 1, got 2");
  EXPECT_EQ(refusal("piqa", R"({"goal":"Go","sol1":"a","sol2":"b","label":"x"})"),
            "file line 1.label: expected 0 to 1, got \"x\"");
  EXPECT_THAT(refusal("piqa", R"({"goal":"Go","goal":"Go","sol1":"a","sol2":"b","label":0})"),
              HasSubstr("file line 1"));
  EXPECT_EQ(refusal("copa", R"({"premise":"P.","choice1":"a","choice2":"b","question":"why","label":0})"),
            "file line 1.question: expected cause or effect, got \"why\"");
  EXPECT_EQ(refusal("arc_easy", R"({"question":"Q","choices":{"text":["a","b"],"label":["A"]},"answerKey":"A"})"),
            "file line 1.choices.label: expected 2 labels, one for each text, got 1");
  EXPECT_EQ(refusal("arc_easy", R"({"question":"Q","choices":{"text":["a","b"],"label":["A","B"]},"answerKey":"C"})"),
            "file line 1.answerKey: expected one of A, B, got C");
  EXPECT_EQ(refusal("arc_easy", R"({"question":"Q","choices":{"text":["a"],"label":["A"]},"answerKey":"A"})"),
            "file line 1: expected at least two choices, got 1");
  EXPECT_THAT(
      refusal("hellaswag", R"({"activity_label":"H","ctx_a":"a","ctx_b":"","endings":["[step]","b"],"label":0})"),
      HasSubstr("file line 1.endings[0]: expected a text besides what is in brackets"));
  EXPECT_THAT(refusal("piqa", std::string(kMaxTaskLine + 1, ' ')),
              HasSubstr("file line 1: expected at most 1048576 bytes"));
  EXPECT_THAT(refusal("piqa", "PAR1\x15"), HasSubstr("expected JSON, got Parquet, which is not read"));
  EXPECT_EQ(refusal("arc", good), "expected a task of arc_easy, boolq, copa, hellaswag, piqa, sciq, got 'arc'");
}

}  // namespace
}  // namespace foe
