// Multiple-choice tasks in the formats in which they are published: each a row of a table, with what its items are
// called in the file and how a prompt is made of one. Prompts, choices and their order are those of
// lm-evaluation-harness 0.4.
//
// A file is JSONL, or one JSON array of the same objects. Both the authors' keys and those of Hugging Face's datasets
// are read; keys that a task does not use may be there.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

inline constexpr std::size_t kMaxTaskFile = std::size_t{256} << 20;  // bytes
inline constexpr std::size_t kMaxTaskLine = std::size_t{1} << 20;

struct Question {
  std::string context;               // not empty
  std::vector<std::string> choices;  // at least two, none empty; what is scored is kDelimiter and one of them
  int answer = 0;                    // index of the right choice
};

// Between context and choice.
inline constexpr const char* kDelimiter = " ";

struct Task {
  std::string name;        // as in lm-evaluation-harness
  bool by_length = false;  // whether accuracies by length are part of the task
  std::vector<Question> questions;
  std::size_t repeated = 0;  // questions that are equal to one before them; they count nevertheless, as in the harness
};

// The names of all tasks.
std::span<const std::string_view> task_names();
// Throws Error, with all names, unless there is a task of this name.
void check_task_name(std::string_view name);

// Reads a task's file. PIQA's labels may be in the items, or, as its authors have them, one a line in NAME-labels.lst
// beside NAME.jsonl. Throws Error, naming file, line (of an array: item) and key, what was expected and what was found.
Task load_task(const std::string& name, const std::string& path);
// The same from the contents of the files. `labels`: those of PIQA; empty: they are in the items.
Task parse_task(const std::string& name, std::string_view text, const std::string& source, std::string_view labels = {},
                const std::string& labels_source = {});

}  // namespace foe
