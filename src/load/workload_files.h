// Parses the files that workloads come from. Every function throws Error naming `source` (the file), what was expected
// and what was found.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace foe {

struct FilePrompt {
  std::string prompt;
  std::string answer;     // its length is that of the output; may be empty
  int output_tokens = 0;  // 0: the file does not say
};

struct Lengths {
  int input = 0, output = 0;
  double at = 0;  // seconds since the first request of the file
};

// JSONL of {"prompt": TEXT, "output_tokens": N}; "output_tokens" is optional.
std::vector<FilePrompt> parse_custom(std::string_view text, const std::string& source);
// ShareGPT's JSON: [{"conversations": [{"value": TEXT}, {"value": TEXT}, ...]}, ...]. The first turn is the prompt, the
// second the answer; shorter conversations are skipped.
std::vector<FilePrompt> parse_sharegpt(std::string_view text, const std::string& source);
// LongBench's JSONL: {"context": TEXT, "input": TEXT, ...}, a question about a long text.
std::vector<FilePrompt> parse_longbench(std::string_view text, const std::string& source);

// Traces of when requests came and how many tokens they had, as CSV with a header or as JSONL. The columns may be those
// of Azure's traces (TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT's (Timestamp, Request tokens, Response
// tokens) or Mooncake's (timestamp in ms, input_length, output_length). Times are seconds or dates, in JSONL
// milliseconds. Returns the requests in the order of their times. Requests without a prompt or an answer, which are
// failures in such traces, are skipped.
std::vector<Lengths> parse_trace(std::string_view text, const std::string& source);

}  // namespace foe
