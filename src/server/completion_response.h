// The JSON that answers POST /v1/completions and GET /v1/models, as text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/request.h"

namespace foe {

// What all parts of one answer share.
struct CompletionHeader {
  std::string id;  // "cmpl-..."
  std::string model;
  std::int64_t created = 0;  // seconds since 1970
};

// One choice of an answer, or a piece of it.
struct CompletionText {
  int index = 0;
  std::string text;
  std::optional<FinishReason> finish;
};

struct CompletionUsage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
};

std::string completion_body(const CompletionHeader& header, const std::vector<CompletionText>& choices,
                            const CompletionUsage& usage);

// Events of a stream, framed. `null_usage`: the client asked for usage, which only the last chunk has.
std::string completion_chunk(const CompletionHeader& header, const CompletionText& choice, bool null_usage);
std::string usage_chunk(const CompletionHeader& header, const CompletionUsage& usage);
std::string error_chunk(int status, const std::string& message);
std::string done_chunk();

std::string models_body(const std::string& model, std::int64_t created, int max_positions);

const char* to_string(FinishReason reason);

}  // namespace foe
