// Writes the JSON of replies to POST /v1/completions and POST /v1/chat/completions, as text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/request.h"
#include "server/api/answer_reader.h"
#include "server/api/generation_request.h"

namespace foe {

// The fields that all parts of an answer share.
struct AnswerHeader {
  Api api = Api::kCompletions;
  std::string id;  // "cmpl-...", "chatcmpl-...", "msg_..." or "resp_..."
  std::string model;
  std::int64_t created = 0;  // seconds since 1970
  ToolChoice tools = ToolChoice::kNone;
  bool reasoning = false;  // whether messages say what the reasoning was, or that there was none
};

// What is reported of one token. Tokens are given as bytes, which need not be UTF-8.
struct TokenReport {
  std::string token;
  std::optional<float> logprob;  // none for the first token of a prompt
  std::vector<std::pair<std::string, float>> top;
  std::size_t offset = 0;  // where it is in the choice's text, in characters
};

// Returns the reports in the form that chats have them in.
nlohmann::ordered_json chat_token_reports(const std::vector<TokenReport>& tokens);

// What is reported of a prompt: of each place but the first the token that is there, then the most likely ones.
struct PromptReport {
  const std::vector<std::int32_t>* prompt = nullptr;  // not owned
  std::vector<LogprobEntry> entries;                  // of the prompt's tokens 1, 2, ...
  int most = 0;                                       // how many of the most likely ones
  Tokenizer tokenizer;                                // names them
};

struct AnswerUsage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t cached_tokens = 0;                     // tokens of the prompt that were in the prefix cache
  std::optional<std::int64_t> reasoning_tokens = {};  // of the completion; none if nobody knows
};

// One choice of an answer, or a piece of it.
struct ChoicePiece {
  std::size_t index = 0;
  std::string text;
  std::string reasoning = {};
  std::vector<ToolCallPiece> calls = {};
  bool ends_in_calls = false;  // with finish: whether there are calls, and the last one is complete
  std::optional<std::vector<TokenReport>> logprobs = {};        // none if they were not asked for
  std::optional<std::vector<std::int32_t>> token_ids = {};      // likewise
  const std::vector<std::int32_t>* prompt_token_ids = nullptr;  // in the first piece if ids were asked for; not owned
  std::optional<PromptReport> prompt_logprobs = {};             // likewise
  std::optional<AnswerUsage> usage = {};                        // chunks: of the choice so far, if that was asked for
  std::optional<FinishReason> finish = {};
  std::variant<std::monostate, std::string, std::int32_t> stopped_by =
      {};                    // a stop string, or an id that was asked for
  std::string receipt = {};  // of the whole answer, in its last piece; empty if none was asked for
};

std::string answer_body(const AnswerHeader& header, const std::vector<ChoicePiece>& choices, const AnswerUsage& usage);

// Each returns one event of a stream, including "data:" and the empty line after it. `null_usage` says that the client
// has asked for usage, which is null in all chunks but the last.
// The first of a choice in a chat.
std::string role_chunk(const AnswerHeader& header, const ChoicePiece& choice, bool null_usage);
std::string answer_chunk(const AnswerHeader& header, const ChoicePiece& choice, bool null_usage);
std::string usage_chunk(const AnswerHeader& header, const AnswerUsage& usage, const std::string& receipt = "");
std::string error_chunk(int status, const std::string& message);
std::string done_chunk();
std::string comment();  // keeps a silent connection open

}  // namespace foe
