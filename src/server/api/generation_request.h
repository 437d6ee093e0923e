// Reads and checks what a client asks to be generated, at any endpoint: OpenAI's fields and further ones of vLLM's.
// Other APIs are read as the same chat in OpenAI's (other_api.h).
//
// One default differs from OpenAI's: without `temperature` the answer is greedy (0 instead of 1), unless the model's
// generation_config.json says otherwise (ServedModel::defaults). A field that is null
// counts as absent. Unknown fields are refused, and so are those that ask for something that foe cannot do
// (known_fields.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/model_config.h"
#include "core/request.h"
#include "engine/sampler.h"
#include "grammar/cache.h"
#include "jinja/chat_template.h"
#include "server/api/generation_defaults.h"
#include "server/api/reasoning.h"
#include "server/api/tool_request.h"
#include "tokenizer/tokenizer.h"

namespace foe {

// The model that is served: what requests are checked against, and what reads their texts. Any thread may use it.
struct ServedModel {
  std::string name;
  int vocab_size = 0;
  int max_positions = 0;
  int hidden_size = 0;                     // how many numbers an embedding has
  std::size_t max_choices = 0;             // the most choices of one request
  std::vector<std::int32_t> eos_ids = {};  // what ends a text
  Tokenizer tokenizer;
  ChatTemplate chat_template = {};
  const ToolSyntax* tool_syntax = nullptr;     // how it writes calls of tools; null: they are text
  const ReasoningSyntax* reasoning = nullptr;  // how it writes its reasoning; null: that is text
  // Set if requests may say what they are routed by.
  std::optional<ModelConfig> routed_by_requests = {};
  GenerationDefaults defaults = {};        // for requests that do not say it themselves
  bool open_objects = false;               // what Constraint::open_objects is
  int max_prompt_logprobs = kMaxLogprobs;  // the most tokens that are reported for a place in a prompt
  std::string no_receipts = {};            // why answers have no receipts; empty: they may have
  std::shared_ptr<GrammarCache> grammars = std::make_shared<GrammarCache>(8);  // compiled to check schemas
};

enum class Api { kCompletions, kChat, kMessages, kResponses, kEmbeddings };
inline constexpr Api kAllApis[] = {Api::kCompletions, Api::kChat, Api::kMessages, Api::kResponses, Api::kEmbeddings};

struct GenerationRequest {
  Api api = Api::kCompletions;
  std::vector<Prompt> prompts;  // at least one, each with at least one token
  int n = 1;                    // choices for each prompt
  int max_tokens = 16;          // 0, with echo: only the prompt
  SamplingParams sampling;      // its seed is not used
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  bool include_stop = false;                        // the text includes the stop string
  std::vector<std::int32_t> stop_ids;               // in addition to the model's end-of-text ids
  std::map<std::int32_t, std::string> stop_tokens;  // those of `stop` that are special tokens, which texts leave out
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool echo = false;           // completions: the text begins with the prompt
  std::string echoed;          // chats: what the content begins with
  bool return_ids = false;     // report the ids of prompt and answer
  bool tokens_as_ids = false;  // name tokens "token_id:ID" in logprobs
  bool stream = false;
  bool include_usage = false;    // at the end of a stream
  bool usage_in_chunks = false;  // and in each of its chunks, of the choice so far
  int prompt_logprobs = -1;      // report the prompt's tokens and so many of the most likely ones; -1: nothing
  int priority = 0;
  std::uint64_t cache_salt = 0;  // what Request::cache_salt is
  Constraint constraint;
  ToolUse tools;
  ReasoningUse reasoning;
  ReasoningMarks reasoning_marks;  // what Request::reasoning is
  std::shared_ptr<const SequenceRoute> route;
  // Responses: what the reply repeats of the request, the members of an object of JSON, each with a comma behind it.
  std::string repeated = {};
  bool receipt = false;    // the answer says what it was computed from (receipt.h)
  std::string route_text;  // with a receipt: `route` as the request has it

  // Choice c is choice c % n of prompt c / n.
  std::size_t choices() const { return prompts.size() * n; }
};

// Returns about how many bytes the reply may have at most.
std::size_t reply_bytes(const GenerationRequest& request);

// Read the bodies of POST /v1/completions, /v1/chat/completions, /v1/messages and /v1/responses, which may be any
// bytes. Throw ApiError with status 400, naming the field, or 404 for another model.
GenerationRequest parse_completion_request(std::string_view body, const ServedModel& model);
GenerationRequest parse_chat_request(std::string_view body, const ServedModel& model);
GenerationRequest parse_messages_request(std::string_view body, const ServedModel& model);
GenerationRequest parse_responses_request(std::string_view body, const ServedModel& model);

// Returns a request to the engine for each choice. Without a seed each choice gets a random one; otherwise the seed of
// choice j of a prompt follows from the seed and j. `eos_ids` are the model's end-of-text ids.
std::vector<Request> engine_requests(const GenerationRequest& request, const std::vector<std::int32_t>& eos_ids);

// --- for the parsers above, and of /tokenize ---

// Throws ApiError 404 if the request names another model.
void check_model(const nlohmann::ordered_json& object, const ServedModel& model);
// Reads the fields that both endpoints have.
void read_common(const nlohmann::ordered_json& object, const ServedModel& model, GenerationRequest& request);
// Returns a digest of the field cache_salt, which is never 0, or 0 if it is absent. It begins with a secret of this
// process, so that nobody can choose a salt with the digest of another.
std::uint64_t read_cache_salt(const nlohmann::ordered_json& object);
// Reads what the text must keep to, which may be the calls of tools. Throws ApiError 400 for a rule that cannot be
// kept, and for more than one.
Constraint read_constraint(const nlohmann::ordered_json& object, const ToolUse& tools, const ServedModel& model);
// Returns the ids of a prompt. Throws ApiError 400 for a text that cannot fit the context, without tokenising it.
std::vector<std::int32_t> encode_prompt(const std::string& text, const char* field, const ServedModel& model,
                                        EncodeOptions options);
// Returns the last ids of a prompt, or with truncation_side = "right" the first ones: as many as the field
// truncate_prompt_tokens says, all if it is absent.
std::vector<std::int32_t> truncated(const nlohmann::ordered_json& object, const ServedModel& model,
                                    std::vector<std::int32_t> ids);
// Reads the tokens that logprobs are reported of, once it is known whether any are.
void read_logprob_tokens(const nlohmann::ordered_json& object, const ServedModel& model, SamplingParams& sampling);
// Reads a chat in OpenAI's form, which may be longer than the context.
GenerationRequest read_chat_request(const nlohmann::ordered_json& object, const ServedModel& model);
// A conversation as the chat template writes it.
struct ChatPrompt {
  std::vector<std::int32_t> ids;
  ReasoningStart reasoning = ReasoningStart::kNowhere;  // of an answer without a rule
  std::string echoed = {};                              // what it begins with, if the chat asks for that
};
// Writes the conversation in the field `messages` as one text with the chat template.
ChatPrompt encode_chat(const nlohmann::ordered_json& object, const ServedModel& model);
// Throws ApiError 400 unless prompts and answers fit the context, the choices max_choices, and a route its prompt.
void check_size(const GenerationRequest& request, const ServedModel& model);

}  // namespace foe
