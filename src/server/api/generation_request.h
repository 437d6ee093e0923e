// What a client asks to be generated, whichever endpoint it asks at, as vLLM reads it: OpenAI's fields and a few more.
//
// One default differs from OpenAI's: without `temperature` the answer is greedy (0, not 1). Unknown fields are ignored,
// null is as if the field were absent, and what the field's name asks for but foe cannot do is refused.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "core/request.h"
#include "grammar/cache.h"
#include "jinja/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace foe {

// What requests are checked against, and what reads their texts.
struct ServedModel {
  std::string name;
  int vocab_size = 0;
  int max_positions = 0;
  std::size_t max_choices = 0;  // of one request
  Tokenizer tokenizer;          // this and the template serve any thread
  ChatTemplate chat_template = {};
  std::shared_ptr<GrammarCache> grammars = std::make_shared<GrammarCache>(8);  // that schemas were checked with
};

enum class Api { kCompletions, kChat };

struct GenerationRequest {
  Api api = Api::kCompletions;
  std::vector<std::vector<std::int32_t>> prompts;  // at least one, each with at least one token
  int n = 1;                                       // choices for each prompt
  int max_tokens = 16;                             // 0: only the prompt, with echo
  SamplingParams sampling;                         // but for the seed
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  bool include_stop = false;           // the stop string is part of the text
  std::vector<std::int32_t> stop_ids;  // besides the model's end of text
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool echo = false;  // the text begins with the prompt
  bool stream = false;
  bool include_usage = false;  // of a stream
  int priority = 0;
  Constraint constraint;

  // Choice c is the (c % n)-th of prompt c / n.
  std::size_t choices() const { return prompts.size() * n; }
};

// About how many bytes the reply may have.
std::size_t reply_bytes(const GenerationRequest& request);

// The bodies of POST /v1/completions and POST /v1/chat/completions. Throw ApiError: 400 naming the field, or 404 for
// another model. `body` may be any bytes.
GenerationRequest parse_completion_request(std::string_view body, const ServedModel& model);
GenerationRequest parse_chat_request(std::string_view body, const ServedModel& model);

// What the engine is asked for: a request for each choice. Without a seed each gets a random one; with one, choice j of
// a prompt has a seed that follows from it and j. `eos_ids` are the model's.
std::vector<Request> engine_requests(const GenerationRequest& request, const std::vector<std::int32_t>& eos_ids);

// --- for the parsers above, and of /tokenize ---

// 404 for another model.
void check_model(const nlohmann::ordered_json& object, const ServedModel& model);
// The fields that both endpoints have, into a request without prompts.
void read_common(const nlohmann::ordered_json& object, const ServedModel& model, GenerationRequest& request);
// A prompt's ids. 400 for a text that cannot fit the context, without the work of reading it.
std::vector<std::int32_t> encode_prompt(const std::string& text, const char* field, const ServedModel& model,
                                        EncodeOptions options);
// The text of the field `messages`, and its ids.
std::vector<std::int32_t> encode_chat(const nlohmann::ordered_json& object, const ServedModel& model);
// 400 unless prompts and answers fit the context, and the choices the queue.
void check_size(const GenerationRequest& request, const ServedModel& model);

}  // namespace foe
