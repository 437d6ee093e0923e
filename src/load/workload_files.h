// The files that workloads come from. Every function throws Error naming `source` (the file), what was expected and
// what was found.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace foe {

struct FilePrompt {
  std::string prompt;
  std::string answer;     // whose length is the output's, if there is one
  int output_tokens = 0;  // 0: the file does not say
};

struct Lengths {
  int input = 0, output = 0;
  double at = 0;  // seconds after the first request of the file
};

// JSONL of {"prompt": TEXT, "output_tokens": N}, the latter if wanted.
std::vector<FilePrompt> parse_custom(std::string_view text, const std::string& source);
// ShareGPT's JSON: [{"conversations": [{"value": TEXT}, {"value": TEXT}, ...]}, ...]. The first turn is the prompt, the
// second the answer; shorter conversations are skipped.
std::vector<FilePrompt> parse_sharegpt(std::string_view text, const std::string& source);
// LongBench's JSONL: {"context": TEXT, "input": TEXT, ...}, a question about a long text.
std::vector<FilePrompt> parse_longbench(std::string_view text, const std::string& source);

// CSV with a header, or JSONL, of when requests came and how many tokens they had: the columns of Azure's traces
// (TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT's (Timestamp, Request tokens, Response tokens) and Mooncake's
// (timestamp in ms, input_length, output_length). Times are seconds, dates, or milliseconds in JSONL. In order of time;
// requests without a prompt or an answer, failures in such traces, are skipped.
std::vector<Lengths> parse_trace(std::string_view text, const std::string& source);

}  // namespace foe
