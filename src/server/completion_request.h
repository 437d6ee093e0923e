// The body of POST /v1/completions, as vLLM reads it: OpenAI's fields and a few more.
//
// One default differs from OpenAI's: without `temperature` the answer is greedy (0, not 1). Unknown fields are ignored,
// null is as if the field were absent, and what the field's name asks for but foe cannot do yet is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/request.h"
#include "text/tokenizer.h"

namespace foe {

// What requests are checked against.
struct ServedModel {
  std::string name;
  int vocab_size = 0;
  int max_positions = 0;
  std::size_t max_prompts = 0;  // in one request
};

struct CompletionRequest {
  std::vector<std::vector<std::int32_t>> prompts;  // at least one, each with at least one token
  int max_tokens = 16;
  SamplingParams sampling;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool stream = false;
  bool include_usage = false;  // of a stream
};

// Throws ApiError: 400 naming the field, or 404 for another model. `body` may be any bytes.
CompletionRequest parse_completion_request(std::string_view body, const ServedModel& model, const Tokenizer& tokenizer);

}  // namespace foe
