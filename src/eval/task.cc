#include "eval/task.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <functional>
#include <set>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "eval/text_rules.h"
#include "text/json_fields.h"

namespace foe {
namespace {

using nlohmann::json;

// --- members of items ---

// A text that is not only space.
const std::string& text_of(const JsonField& field) {
  const std::string& text = field.string();
  if (strip(text).empty()) fail("{}: expected a text, got {}", field.path, excerpt(field.value));
  return text;
}

int index_below(const JsonField& field, std::int64_t value, std::size_t count) {
  if (value < 0 || value >= static_cast<std::int64_t>(count))
    fail("{}: expected 0 to {}, got {}", field.path, count - 1, value);
  return static_cast<int>(value);
}

// An index that is given as a number, or as the text of one.
int label_of(const JsonField& field, std::size_t count) {
  if (!field.value.is_string()) return index_below(field, field.integer(), count);
  const std::string& text = field.string();
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail("{}: expected 0 to {}, got {}", field.path, count - 1, excerpt(field.value));
  return index_below(field, value, count);
}

// --- tasks ---

// AI2's: {"question": {"stem": TEXT, "choices": [{"text": TEXT, "label": "A"}, ...]}, "answerKey": "A"}
// Hugging Face's: {"question": TEXT, "choices": {"text": [TEXT, ...], "label": ["A", ...]}, "answerKey": "A"}
Question arc_easy(const JsonField& item) {
  Question q;
  std::vector<std::string> labels;
  const JsonField question = item["question"];
  if (question.value.is_object()) {
    q.context = text_of(question["stem"]);
    const JsonField choices = question["choices"];
    for (std::size_t i = 0; i < choices.array().size(); ++i) {
      q.choices.push_back(text_of(choices[i]["text"]));
      labels.push_back(choices[i]["label"].string());
    }
  } else {
    q.context = text_of(question);
    const JsonField texts = item["choices"]["text"], names = item["choices"]["label"];
    if (texts.array().size() != names.array().size())
      fail("{}: expected {} labels, one for each text, got {}", names.path, texts.array().size(), names.array().size());
    for (std::size_t i = 0; i < texts.array().size(); ++i) {
      q.choices.push_back(text_of(texts[i]));
      labels.push_back(names[i].string());
    }
  }
  const JsonField key = item["answerKey"];
  const auto found = std::ranges::find(labels, key.string());
  if (found == labels.end()) fail("{}: expected one of {}, got {}", key.path, fmt::join(labels, ", "), key.string());
  q.answer = static_cast<int>(found - labels.begin());
  q.context = "Question: " + q.context + "\nAnswer:";
  return q;
}

// The authors': {"question": TEXT, "passage": TEXT, "answer": true}; SuperGLUE's: "label" instead, true or 1.
Question boolq(const JsonField& item) {
  const JsonField answer = item["answer"].null() ? item["label"] : item["answer"];
  return {text_of(item["passage"]) + "\nQuestion: " + text_of(item["question"]) + "?\nAnswer:",
          {"no", "yes"},
          answer.value.is_boolean() ? int{answer.boolean()} : label_of(answer, 2)};
}

// SuperGLUE's: {"premise": TEXT, "choice1": TEXT, "choice2": TEXT, "question": "cause" or "effect", "label": 0}.
Question copa(const JsonField& item) {
  const JsonField question = item["question"];
  const std::string& asks = question.string();
  if (asks != "cause" && asks != "effect")
    fail("{}: expected cause or effect, got {}", question.path, excerpt(question.value));
  Question q;
  // The full stop goes, whatever it is.
  q.context = without_last_character(strip(text_of(item["premise"])));
  q.context += asks == "cause" ? " because" : " therefore";
  // This space and the delimiter make two, as in the harness.
  for (const char* key : {"choice1", "choice2"}) q.choices.push_back(" " + lower_first(text_of(item[key])));
  q.answer = label_of(item["label"], 2);
  return q;
}

// WikiHow's articles have left "[header]", "[title]" and "[step]" in the texts.
std::string clean_hellaswag(std::string_view text) {
  return replace_all(remove_brackets(replace_all(strip(text), " [title]", ". ")), "  ", " ");
}

// {"activity_label": TEXT, "ctx_a": TEXT, "ctx_b": TEXT, "endings": [TEXT, ...], "label": 3}. ctx_b may be empty.
Question hellaswag(const JsonField& item) {
  Question q;
  q.context = clean_hellaswag(text_of(item["activity_label"]) + ": " + item["ctx_a"].string() + " " +
                              capitalise(item["ctx_b"].string()));
  const JsonField endings = item["endings"];
  if (endings.array().size() < 2)
    fail("{}: expected at least two endings, got {}", endings.path, endings.array().size());
  for (std::size_t i = 0; i < endings.array().size(); ++i) {
    q.choices.push_back(clean_hellaswag(text_of(endings[i])));
    if (q.choices.back().empty())
      fail("{}: expected a text besides what is in brackets, got {}", endings[i].path, excerpt(endings[i].value));
  }
  q.answer = label_of(item["label"], q.choices.size());
  return q;
}

// {"goal": TEXT, "sol1": TEXT, "sol2": TEXT}, and "label" here or in a file of its own.
Question piqa(const JsonField& item) {
  return {"Question: " + text_of(item["goal"]) + "\nAnswer:",
          {text_of(item["sol1"]), text_of(item["sol2"])},
          label_of(item["label"], 2)};
}

// {"support": TEXT, "question": TEXT, "distractor1": TEXT, ..., "correct_answer": TEXT}. The support may be empty.
Question sciq(const JsonField& item) {
  Question q;
  q.context = strip_left(item["support"].string());
  q.context += "\nQuestion: " + text_of(item["question"]) + "\nAnswer:";
  for (const char* key : {"distractor1", "distractor2", "distractor3", "correct_answer"})
    q.choices.push_back(text_of(item[key]));
  q.answer = 3;
  return q;
}

struct Format {
  std::string_view name;
  bool by_length;
  Question (*question)(const JsonField& item);
};
constexpr std::array kFormats = {Format{"arc_easy", true, arc_easy}, Format{"boolq", false, boolq},
                                 Format{"copa", false, copa},        Format{"hellaswag", true, hellaswag},
                                 Format{"piqa", true, piqa},         Format{"sciq", true, sciq}};

const Format& format_of(std::string_view name) {
  for (const Format& format : kFormats)
    if (format.name == name) return format;
  fail("expected a task of {}, got '{}'", fmt::join(task_names(), ", "), name);
}

// --- files ---

// Calls line(text, number) for every line that is not blank, without its end.
void for_each_line(std::string_view text, const std::string& source,
                   const std::function<void(std::string_view, std::size_t)>& line) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > kMaxTaskLine) fail("{} line {}: expected at most {} bytes, got {}", source, number, kMaxTaskLine, end);
    const std::string_view content = strip(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!content.empty()) line(content, number);
  }
}

// Calls each(item, "FILE line N") for every item.
void for_each_item(std::string_view text, const std::string& source,
                   const std::function<void(json&, const std::string&)>& each) {
  if (text.starts_with("PAR1"))
    fail(
        "{}: expected JSON, got Parquet, which is not read: write its rows as JSONL first, as "
        "pandas.read_parquet(FILE).to_json(OUT, orient=\"records\", lines=True) does",
        source);
  if (!strip(text).starts_with('[')) {
    for_each_line(text, source, [&](std::string_view line, std::size_t number) {
      const std::string place = fmt::format("{} line {}", source, number);
      json item = parse_strict_json(line, place);
      each(item, place);
    });
    return;
  }
  json all = parse_strict_json(text, source);
  std::size_t number = 0;
  for (json& item : all) each(item, fmt::format("{} item {}", source, ++number));
}

std::vector<std::int64_t> parse_labels(std::string_view text, const std::string& source) {
  std::vector<std::int64_t> labels;
  for_each_line(text, source, [&](std::string_view line, std::size_t number) {
    if (line != "0" && line != "1")
      fail("{} line {}: expected 0 or 1, got '{}'", source, number, shorten(std::string(line)));
    labels.push_back(line == "1");
  });
  return labels;
}

std::size_t count_repeated(const std::vector<Question>& questions) {
  std::set<std::pair<std::string_view, std::string>> seen;
  std::size_t repeated = 0;
  for (const Question& q : questions) repeated += !seen.emplace(q.context, fmt::format("{}", q.choices)).second;
  return repeated;
}

}  // namespace

std::span<const std::string_view> task_names() {
  static const auto kNames = [] {
    std::array<std::string_view, kFormats.size()> names;
    std::ranges::transform(kFormats, names.begin(), &Format::name);
    return names;
  }();
  return kNames;
}

void check_task_name(std::string_view name) {
  format_of(name);
}

Task parse_task(const std::string& name, std::string_view text, const std::string& source, std::string_view labels,
                const std::string& labels_source) {
  const Format& format = format_of(name);
  const std::vector<std::int64_t> apart = parse_labels(labels, labels_source);
  Task task{.name = name, .by_length = format.by_length, .questions = {}};
  for_each_item(text, source, [&](json& item, const std::string& place) {
    const std::size_t index = task.questions.size();
    if (!item.is_object()) fail("{}: expected a JSON object, got {}", place, excerpt(item));
    if (!labels.empty()) {
      if (item.contains("label"))
        fail("{}: expected no \"label\", as {} has them, got {}", place, labels_source, excerpt(item["label"]));
      if (index < apart.size()) item["label"] = apart[index];
    }
    if (!labels.empty() && index >= apart.size())
      fail("{}: expected a label for each item of {}, got {} labels", labels_source, source, apart.size());
    const Question& q = task.questions.emplace_back(format.question({item, place}));
    if (q.choices.size() < 2) fail("{}: expected at least two choices, got {}", place, q.choices.size());
  });
  if (task.questions.empty()) fail("{}: expected at least one item, got none", source);
  if (!labels.empty() && apart.size() != task.questions.size())
    fail("{}: expected {} labels, one for each item of {}, got {}", labels_source, task.questions.size(), source,
         apart.size());
  task.repeated = count_repeated(task.questions);
  return task;
}

Task load_task(const std::string& name, const std::string& path) {
  const std::string text = read_text_file(path, kMaxTaskFile);
  std::filesystem::path labels = path;
  labels.replace_filename(labels.stem().string() + "-labels.lst");
  if (name != "piqa" || !std::filesystem::exists(labels)) return parse_task(name, text, path);
  return parse_task(name, text, path, read_text_file(labels, kMaxTaskFile), labels);
}

}  // namespace foe
