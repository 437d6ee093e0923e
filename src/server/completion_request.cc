#include "server/completion_request.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "engine/sampler.h"
#include "server/api_error.h"
#include "weights/strict_json.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxStopStrings = 16;
constexpr std::size_t kMaxStopBytes = 1024;

// The field, unless it is absent or null.
const json* find(const json& object, const char* name) {
  const auto field = object.find(name);
  return field == object.end() || field->is_null() ? nullptr : &*field;
}

bool read_bool(const json& object, const char* name, bool otherwise) {
  const json* value = find(object, name);
  if (!value) return otherwise;
  if (!value->is_boolean()) refuse(name, "expected true or false, got {}", excerpt(*value));
  return value->get<bool>();
}

// An integer in [low, high]. JSON has no integers past 64 bits: the parser makes a float of those.
int read_int(const json& object, const char* name, int low, int high, int otherwise) {
  const json* value = find(object, name);
  if (!value) return otherwise;
  const auto in_range = [&] {
    if (value->is_number_unsigned()) return value->get<std::uint64_t>() <= static_cast<std::uint64_t>(high);
    return value->is_number_integer() && value->get<std::int64_t>() >= low && value->get<std::int64_t>() <= high;
  };
  if (!in_range() || value->get<std::int64_t>() < low)
    refuse(name, "expected an integer from {} to {}, got {}", low, high, excerpt(*value));
  return value->get<int>();
}

float read_float(const json& object, const char* name, float otherwise) {
  const json* value = find(object, name);
  if (!value) return otherwise;
  if (!value->is_number()) refuse(name, "expected a number, got {}", excerpt(*value));
  const double number = value->get<double>();
  if (std::abs(number) > std::numeric_limits<float>::max())
    refuse(name, "expected a number that a float can hold, got {}", excerpt(*value));
  return static_cast<float>(number);
}

std::optional<std::uint64_t> read_seed(const json& object) {
  const json* value = find(object, "seed");
  if (!value) return {};
  if (!value->is_number_integer()) refuse("seed", "expected an integer of 64 bits, got {}", excerpt(*value));
  return value->get<std::uint64_t>();  // a negative one wraps around: any 64 bits are a seed
}

std::vector<std::string> read_stop(const json& object) {
  const json* value = find(object, "stop");
  if (!value) return {};
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > kMaxStopStrings)
    refuse("stop", "expected at most {} strings, got {}", kMaxStopStrings, list.size());
  std::vector<std::string> strings;
  for (const json& item : list) {
    if (!item.is_string()) refuse("stop", "expected a string or a list of strings, got {}", excerpt(*value));
    strings.push_back(item.get<std::string>());
    if (strings.back().empty() || strings.back().size() > kMaxStopBytes)
      refuse("stop", "expected strings of 1 to {} bytes, got one of {}", kMaxStopBytes, strings.back().size());
  }
  return strings;
}

bool read_include_usage(const json& object, bool stream) {
  const json* value = find(object, "stream_options");
  if (!value) return false;
  if (!stream) refuse("stream_options", "expected it only with stream = true");
  if (!value->is_object()) refuse("stream_options", "expected an object, got {}", excerpt(*value));
  return read_bool(*value, "include_usage", false);
}

void check_model(const json& object, const ServedModel& model) {
  const json* value = find(object, "model");
  if (!value) return;
  if (!value->is_string()) refuse("model", "expected a string, got {}", excerpt(*value));
  if (value->get_ref<const std::string&>() != model.name)
    throw ApiError(404, "model",
                   fmt::format("The model `{}` does not exist: this server has `{}`.",
                               shorten(value->get<std::string>()), model.name));
}

// Fields that would change the answer, and the values of them that ask for nothing.
void check_unsupported(const json& object) {
  const std::pair<const char*, std::vector<json>> fields[] = {
      {"n", {1}},
      {"best_of", {1}},
      {"echo", {false}},
      {"logprobs", {false}},
      {"prompt_logprobs", {}},
      {"suffix", {""}},
      {"presence_penalty", {0}},
      {"frequency_penalty", {0}},
      {"repetition_penalty", {1}},
      {"length_penalty", {1}},
      {"logit_bias", {json::object()}},
      {"stop_token_ids", {json::array()}},
      {"include_stop_str_in_output", {false}},
      {"min_tokens", {0}},
      {"use_beam_search", {false}},
      {"response_format", {{{"type", "text"}}}},
      {"prompt_embeds", {}},
  };
  for (const auto& [name, neutral] : fields) {
    const json* value = find(object, name);
    if (value && std::find(neutral.begin(), neutral.end(), *value) == neutral.end())
      refuse(name, "{} is not supported yet", excerpt(*value));
  }
}

// --- the prompt: a string, a list of strings, a list of ids, or a list of lists of ids ---

std::vector<std::int32_t> read_ids(const json& list, const ServedModel& model) {
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (const json& item : list) {
    const bool fits = item.is_number_unsigned() && item.get<std::uint64_t>() < static_cast<unsigned>(model.vocab_size);
    if (!fits) refuse("prompt", "expected token ids in [0, {}), got {}", model.vocab_size, excerpt(item));
    ids.push_back(item.get<std::int32_t>());
  }
  return ids;
}

std::size_t longest_token(const Tokenizer& tokenizer) {
  std::size_t longest = 1;
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    longest = std::max(longest, tokenizer.token_bytes(id).size());
  return longest;
}

std::vector<std::int32_t> read_text(const std::string& text, const ServedModel& model, const Tokenizer& tokenizer) {
  // Tokenising takes time that others wait for, so a text that cannot fit is refused before: no token has more bytes
  // than the longest, and composing characters makes a text at most three times shorter (Unicode's FAQ on NFC).
  const std::size_t most = 3 * longest_token(tokenizer) * static_cast<std::size_t>(model.max_positions);
  if (text.size() > most)
    refuse("prompt", "this model's maximum context length is {} tokens, no more than {} bytes; the prompt has {}",
           model.max_positions, most, text.size());
  return tokenizer.encode(text);
}

std::vector<std::vector<std::int32_t>> read_prompts(const json& object, const ServedModel& model,
                                                    const Tokenizer& tokenizer) {
  const json* value = find(object, "prompt");
  if (!value) refuse("prompt", "expected a string, a list of strings, or token ids, got none");
  const bool one = value->is_string() || (value->is_array() && !value->empty() && value->front().is_number());
  if (!one && (!value->is_array() || value->empty()))
    refuse("prompt", "expected a string, a list of strings, or token ids, got {}", excerpt(*value));
  const std::size_t count = one ? 1 : value->size();
  if (count > model.max_prompts) refuse("prompt", "expected at most {} prompts, got {}", model.max_prompts, count);

  std::vector<std::vector<std::int32_t>> prompts;
  for (std::size_t i = 0; i < count; ++i) {
    const json& prompt = one ? *value : (*value)[i];
    if (!prompt.is_string() && !prompt.is_array())
      refuse("prompt", "expected strings or lists of token ids, got {}", excerpt(prompt));
    prompts.push_back(prompt.is_string() ? read_text(prompt.get_ref<const std::string&>(), model, tokenizer)
                                         : read_ids(prompt, model));
    if (prompts.back().empty()) refuse("prompt", "expected at least one token, got none");
  }
  return prompts;
}

void check_context(const CompletionRequest& request, const ServedModel& model) {
  for (const auto& prompt : request.prompts)
    if (prompt.size() + request.max_tokens > static_cast<std::size_t>(model.max_positions))
      refuse("prompt",
             "this model's maximum context length is {} tokens, but {} were requested ({} in the prompt, {} for the "
             "answer)",
             model.max_positions, prompt.size() + request.max_tokens, prompt.size(), request.max_tokens);
}

CompletionRequest read_request(const json& object, const ServedModel& model, const Tokenizer& tokenizer) {
  if (!object.is_object()) throw ApiError(400, "", "expected a JSON object, got " + excerpt(object));
  check_model(object, model);
  check_unsupported(object);
  CompletionRequest request;
  request.max_tokens = read_int(object, "max_tokens", 1, model.max_positions, request.max_tokens);
  request.sampling.temperature = read_float(object, "temperature", 0.0f);
  request.sampling.top_p = read_float(object, "top_p", 1.0f);
  request.sampling.min_p = read_float(object, "min_p", 0.0f);
  // -1 is vLLM's way to say "all".
  request.sampling.top_k = std::max(0, read_int(object, "top_k", -1, std::numeric_limits<int>::max(), 0));
  validate(request.sampling);
  request.seed = read_seed(object);
  request.stop = read_stop(object);
  request.ignore_eos = read_bool(object, "ignore_eos", false);
  request.skip_special_tokens = read_bool(object, "skip_special_tokens", true);
  request.stream = read_bool(object, "stream", false);
  request.include_usage = read_include_usage(object, request.stream);
  request.prompts = read_prompts(object, model, tokenizer);
  check_context(request, model);
  return request;
}

}  // namespace

CompletionRequest parse_completion_request(std::string_view body, const ServedModel& model,
                                           const Tokenizer& tokenizer) {
  try {
    return read_request(parse_strict_json(body, "body"), model, tokenizer);
  } catch (const ApiError&) {
    throw;
  } catch (const Error& error) {  // of the parser, the tokenizer or the sampler's check: they name what is wrong
    throw ApiError(400, "", error.what());
  }
}

}  // namespace foe
