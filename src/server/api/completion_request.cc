// Reads the body of POST /v1/completions.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "engine/sampler.h"
#include "server/api/generation_request.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

// In completions `logprobs` is a number. Some clients send `false` to ask for none.
int read_logprobs(const json& object) {
  const json* value = find_field(object, "logprobs");
  if (value && *value == false) return -1;
  return read_int(object, "logprobs", 0, kMaxLogprobs, -1);
}

// Reads a prompt, which is a string, a list of strings, a list of ids, or a list of lists of ids.
std::vector<Prompt> read_prompts(const json& object, const ServedModel& model) {
  const json* value = find_field(object, "prompt");
  if (!value) refuse("prompt", "expected a string, a list of strings, or token ids, got none");
  const bool one = value->is_string() || (value->is_array() && !value->empty() && value->front().is_number());
  if (!one && (!value->is_array() || value->empty()))
    refuse("prompt", "expected a string, a list of strings, or token ids, got {}", excerpt(*value));
  const std::size_t count = one ? 1 : value->size();
  if (count > model.max_choices) refuse("prompt", "expected at most {} prompts, got {}", model.max_choices, count);

  const EncodeOptions options{.add_special_tokens = read_bool(object, "add_special_tokens", true)};
  std::vector<Prompt> prompts;
  for (std::size_t i = 0; i < count; ++i) {
    const json& prompt = one ? *value : (*value)[i];
    if (!prompt.is_string() && !prompt.is_array())
      refuse("prompt", "expected strings or lists of token ids, got {}", excerpt(prompt));
    prompts.push_back(truncated(object, model,
                                prompt.is_string()
                                    ? encode_prompt(prompt.get_ref<const std::string&>(), "prompt", model, options)
                                    : read_ids(prompt, "prompt", prompt.size(), model.vocab_size)));
  }
  return prompts;
}

}  // namespace

GenerationRequest parse_completion_request(std::string_view body, const ServedModel& model) {
  const JsonBody object = parse_object(body);
  GenerationRequest request;
  read_common(object, model, request);
  request.echo = read_bool(object, "echo", false);
  request.max_tokens = std::min(request.max_tokens, model.defaults.max_tokens.value_or(request.max_tokens));
  request.max_tokens = read_int(object, "max_tokens", request.echo ? 0 : 1, model.max_positions, request.max_tokens);
  request.sampling.logprobs = read_logprobs(object);
  read_logprob_tokens(object, model, request.sampling);
  if (request.echo && !request.sampling.logprob_tokens.empty())
    refuse("logprob_token_ids", "expected it without echo: it is of the answer's tokens, and not of the prompt's");
  request.sampling.prompt_logprobs = std::max(request.echo ? request.sampling.logprobs : -1, request.prompt_logprobs);
  request.prompts = read_prompts(object, model);
  check_size(request, model);
  return request;
}

}  // namespace foe
