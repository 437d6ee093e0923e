#include "server/api/embedding_request.h"

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "sched/scheduler.h"
#include "server/api/known_fields.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

// Returns the one of two values that the field says; the first if it is absent.
const char* read_one_of(const json& object, const char* name, const char* first, const char* second) {
  const json* value = find_field(object, name);
  if (!value || *value == first) return first;
  if (*value != second) refuse(name, "expected {} or {}, got {}", first, second, excerpt(*value));
  return second;
}

// Reads an input, or a list of them. An element of a list that says nothing of its form is of the one that the first
// has.
std::vector<std::vector<std::int32_t>> read_inputs(const json& object, const ServedModel& model) {
  constexpr const char* kField = "input";
  constexpr const char* kForms = "a string, a list of strings, token ids, or a list of lists of token ids";
  const json* value = find_field(object, kField);
  if (!value) refuse(kField, "expected {}, got none", kForms);
  const bool one = value->is_string() || (value->is_array() && !value->empty() && value->front().is_number());
  if (!one && (!value->is_array() || value->empty())) refuse(kField, "expected {}, got {}", kForms, excerpt(*value));
  const std::size_t count = one ? 1 : value->size();
  if (count > kMaxInputs) refuse(kField, "expected at most {} inputs, got {}", kMaxInputs, count);

  const EncodeOptions options{.add_special_tokens = read_bool(object, "add_special_tokens", true)};
  const bool texts = one ? value->is_string() : value->front().is_string();
  std::vector<std::vector<std::int32_t>> inputs;
  for (std::size_t i = 0; i < count; ++i) {
    const json& input = one ? *value : (*value)[i];
    if (texts ? !input.is_string() : !input.is_array())
      refuse(kField, "expected {}, got {} as input {}", kForms, excerpt(input), i);
    inputs.push_back(texts ? encode_prompt(input.get_ref<const std::string&>(), kField, model, options)
                           : read_ids(input, kField, input.size(), model.vocab_size));
  }
  return inputs;
}

// vLLM reads a conversation, too. Nothing is to be answered, so the template does not begin an answer by itself.
std::vector<std::int32_t> read_conversation(json& object, const ServedModel& model) {
  if (find_field(object, "input")) refuse("input", "expected an input or messages, got both");
  const json* variables = find_field(object, "chat_template_kwargs");
  const bool said = variables && variables->is_object() && variables->contains("add_generation_prompt");
  if (!find_field(object, "add_generation_prompt") && !said) object["add_generation_prompt"] = false;
  return encode_chat(object, model).ids;
}

void read_prompts(json& object, const ServedModel& model, EmbeddingRequest& request) {
  const char* field = find_field(object, "messages") ? "messages" : "input";
  if (const json* most = find_field(object, "truncate_prompt_tokens"); most && *most == -1)
    object["truncate_prompt_tokens"] = model.max_positions;  // as in vLLM
  if (find_field(object, "messages")) {
    request.inputs.push_back(truncated(object, model, read_conversation(object, model)));
  } else {
    for (const char* name : {"add_generation_prompt", "continue_final_message", "chat_template_kwargs"})
      if (find_field(object, name)) refuse(name, "expected it only beside messages");
    for (std::vector<std::int32_t>& ids : read_inputs(object, model))
      request.inputs.push_back(truncated(object, model, std::move(ids)));
  }
  for (std::size_t i = 0; i < request.inputs.size(); ++i) {
    const std::size_t tokens = request.inputs[i].size();
    if (tokens == 0) refuse(field, "expected inputs of at least one token, got none as input {}", i);
    if (tokens > static_cast<std::size_t>(model.max_positions))
      refuse(field, "this model's maximum context length is {} tokens, but input {} has {}", model.max_positions, i,
             tokens);
  }
}

void check_dimensions(const json& object, int hidden_size) {
  const int dimensions = read_int(object, "dimensions", 1, std::numeric_limits<int>::max(), hidden_size);
  if (dimensions != hidden_size)
    refuse("dimensions",
           "expected {}, all numbers of this model's embeddings: it says of no part of them that it means something by "
           "itself (Matryoshka); got {}",
           hidden_size, dimensions);
}

bool read_normalised(const json& object) {
  const bool normalised = read_bool(object, "normalize", true);
  const bool activated = read_bool(object, "use_activation", normalised);  // vLLM's later name for it
  if (find_field(object, "normalize") && activated != normalised)
    refuse("use_activation", "expected normalize = {}, which says the same, got {}", normalised, activated);
  return activated;
}

}  // namespace

EmbeddingRequest parse_embedding_request(std::string_view body, const ServedModel& model) {
  JsonBody object = parse_object(body);
  check_model(object, model);
  check_fields(object, Api::kEmbeddings);
  EmbeddingRequest request;
  request.pooling =
      read_one_of(object, "pooling", "last", "mean") == std::string_view("mean") ? Pooling::kMean : Pooling::kLast;
  request.normalised = read_normalised(object);
  request.base64 = read_one_of(object, "encoding_format", "float", "base64") == std::string_view("base64");
  check_dimensions(object, model.hidden_size);
  request.priority = read_int(object, "priority", 1 - kMaxPriority, kMaxPriority, 0);
  request.cache_salt = read_cache_salt(object);
  read_prompts(object, model, request);
  return request;
}

std::vector<Request> engine_requests(const EmbeddingRequest& request) {
  std::vector<Request> requests;
  for (const Prompt& input : request.inputs) {
    Request& r = requests.emplace_back();
    r.prompt = input;
    r.max_tokens = 0;
    r.priority = request.priority;
    r.cache_salt = request.cache_salt;
    r.pooling = request.pooling;
  }
  return requests;
}

std::size_t reply_bytes(const EmbeddingRequest& request, int hidden_size) {
  const std::size_t numbers = request.inputs.size() * static_cast<std::size_t>(hidden_size);
  return numbers * (request.base64 ? 6 : 24);
}

}  // namespace foe
