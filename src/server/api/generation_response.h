// The JSON that answers POST /v1/completions, POST /v1/chat/completions and GET /v1/models, as text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/request.h"
#include "server/api/generation_request.h"

namespace foe {

// What all parts of one answer share.
struct AnswerHeader {
  Api api = Api::kCompletions;
  std::string id;  // "cmpl-..." or "chatcmpl-..."
  std::string model;
  std::int64_t created = 0;  // seconds since 1970
};

// What is reported of one token. Tokens as bytes, which need not be UTF-8.
struct TokenReport {
  std::string token;
  std::optional<float> logprob;  // none for the first token of a prompt
  std::vector<std::pair<std::string, float>> top;
  std::size_t offset = 0;  // in the choice's text, in characters
};

// One choice of an answer, or a piece of it.
struct ChoicePiece {
  std::size_t index = 0;
  std::string text;
  std::optional<std::vector<TokenReport>> logprobs = {};  // if they were asked for
  std::optional<FinishReason> finish = {};
  std::variant<std::monostate, std::string, std::int32_t> stopped_by =
      {};  // a stop string, or an id that was asked for
};

struct AnswerUsage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t cached_tokens = 0;  // of the prompt, found in the prefix cache
};

std::string answer_body(const AnswerHeader& header, const std::vector<ChoicePiece>& choices, const AnswerUsage& usage);

// Events of a stream, framed. `null_usage`: the client asked for usage, which only the last chunk has.
std::string role_chunk(const AnswerHeader& header, std::size_t index, bool null_usage);  // begins a choice of a chat
std::string answer_chunk(const AnswerHeader& header, const ChoicePiece& choice, bool null_usage);
std::string usage_chunk(const AnswerHeader& header, const AnswerUsage& usage);
std::string error_chunk(int status, const std::string& message);
std::string done_chunk();
std::string comment();  // says nothing

std::string models_body(const std::string& model, std::int64_t created, int max_positions);

}  // namespace foe
