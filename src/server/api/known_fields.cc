#include "server/api/known_fields.h"

#include <algorithm>
#include <string>

#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/request_fields.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;
using enum FieldUse;

constexpr KnownField kShared[] = {
    {"model", kRead},
    {"max_tokens", kRead},
    {"n", kRead},
    {"best_of", kRead},
    {"temperature", kRead},
    {"top_p", kRead},
    {"top_k", kRead},
    {"min_p", kRead},
    {"seed", kRead},
    {"presence_penalty", kRead},
    {"frequency_penalty", kRead},
    {"repetition_penalty", kRead},
    {"logit_bias", kRead},
    {"allowed_token_ids", kRead},
    {"bad_words", kRead},
    {"logprobs", kRead},
    {"logprob_token_ids", kRead},
    {"stop", kRead},
    {"stop_token_ids", kRead},
    {"include_stop_str_in_output", kRead},
    {"min_tokens", kRead},
    {"ignore_eos", kRead},
    {"skip_special_tokens", kRead},
    {"add_special_tokens", kRead},
    {"truncate_prompt_tokens", kRead},
    {"truncation_side", kRead},
    {"prompt_logprobs", kRead},
    {"stream", kRead},
    {"stream_options", kRead},
    {"return_token_ids", kRead},
    {"return_tokens_as_token_ids", kRead},
    {"priority", kRead},
    {"cache_salt", kRead},
    {"response_format", kRead},
    {"structured_outputs", kRead},
    {"guided_json", kRead},
    {"guided_regex", kRead},
    {"guided_choice", kRead},
    {"json_schema", kRead},
    {"regex", kRead},
    {"grammar", kRead},
    {"guided_grammar", kRead},
    {"ebnf", kRead},
    {"foe_route", kRead},
    {"receipt", kRead},

    {"user", kNoEffect, R"("")"},
    {"metadata", kNoEffect, "{}"},
    {"store", kNoEffect, "false"},
    {"service_tier", kNoEffect, R"("")"},
    {"safety_identifier", kNoEffect, R"("")"},
    {"prompt_cache_key", kNoEffect, R"("")"},
    {"prompt_cache_retention", kNoEffect, R"("")"},
    {"request_id", kNoEffect, R"("")"},
    {"cache_prompt", kNoEffect, "false"},
    {"guided_decoding_backend", kNoEffect, R"("")"},

    {"guided_whitespace_pattern", kRefused},
    {"guided_decoding", kRefused, {}, "use structured_outputs"},
    {"use_beam_search", kRefused, "[false]"},
    {"length_penalty", kRefused, "[1]"},
    {"early_stopping", kRefused, "[false]"},
    {"logits_processors", kRefused, "[[]]"},
    {"prompt_embeds", kRefused},
    {"return_prompt_token_ids", kRefused, "[false]"},
    {"spaces_between_special_tokens", kRefused, "[true]"},
    {"detokenize", kRefused, "[true]"},
    {"kv_transfer_params", kRefused},
    {"vllm_xargs", kRefused, "[{}]"},
    {"mm_processor_kwargs", kRefused, "[{}]"},
    {"lora", kRefused, "[[]]"},
    {"lora_path", kRefused},
    {"custom_logit_processor", kRefused},
    {"n_predict", kRefused, {}, "use max_tokens"},
    {"max_new_tokens", kRefused, {}, "use max_tokens"},
    {"do_sample", kRefused, {}, "use temperature"},
    {"typical_p", kRefused, "[1]"},
    {"tfs_z", kRefused, "[1]"},
    {"mirostat", kRefused, "[0]"},
    {"repeat_penalty", kRefused, "[1]", "use repetition_penalty"},
    {"samplers", kRefused},
    {"prediction", kRefused, {}, "start the server with --draft-tokens"},
};

constexpr KnownField kCompletions[] = {
    {"prompt", kRead},
    {"echo", kRead},
    {"suffix", kRefused, R"([""])"},
    {"tools", kRefused, "[[]]", "use /v1/chat/completions"},
};

constexpr KnownField kChat[] = {
    {"messages", kRead},
    {"max_completion_tokens", kRead},
    {"top_logprobs", kRead},
    {"tools", kRead},
    {"tool_choice", kRead},
    {"parallel_tool_calls", kRead},
    {"documents", kRead},
    {"reasoning_effort", kRead},
    {"include_reasoning", kRead},
    {"thinking_token_budget", kRead},
    {"chat_template_kwargs", kRead},
    {"add_generation_prompt", kRead},
    {"continue_final_message", kRead},
    {"echo", kRead},

    {"chat_template", kRefused, {}, "start the server with --chat-template"},
    {"functions", kRefused, "[[]]", "use tools"},
    {"function_call", kRefused, R"(["none"])", "use tool_choice"},
    {"modalities", kRefused, R"([["text"]])"},
    {"audio", kRefused},
    {"web_search_options", kRefused},
    {"verbosity", kRefused, R"(["medium"])"},
};

// Chats that are written in Anthropic's form. Of a chat's own fields, its answers have no place for these results:
// several choices, log probabilities and ids.
constexpr KnownField kMessagesFields[] = {
    {"messages", kRead},
    {"system", kRead},
    {"stop_sequences", kRead},
    {"tools", kRead},
    {"tool_choice", kRead},
    {"thinking", kRead},
    {"output_config", kRead},
    {"chat_template_kwargs", kRead},

    {"cache_control", kNoEffect, "{}"},
    {"user_profile_id", kNoEffect, R"("")"},
    {"workspace_id", kNoEffect, R"("")"},

    {"container", kRefused},
    {"context_management", kRefused},
    {"diagnostics", kRefused},
    {"inference_geo", kRefused},
    {"mcp_servers", kRefused, "[[]]"},
    {"speed", kRefused, R"(["standard"])"},
    {"output_format", kRefused, {}, "use output_config.format"},
    {"stop", kRefused, "[[]]", "use stop_sequences"},
    {"response_format", kRefused, R"([{"type": "text"}])", "use output_config.format"},
    {"stream_options", kRefused},
    {"n", kRefused, "[1]"},
    {"best_of", kRefused, "[1]"},
    {"logprobs", kRefused, "[false]"},
    {"logprob_token_ids", kRefused, "[[]]"},
    {"prompt_logprobs", kRefused},
    {"return_token_ids", kRefused, "[false]"},
    {"return_tokens_as_token_ids", kRefused, "[false]"},
};

// Chats that are written in the form of OpenAI's Responses API. Nothing is kept between requests.
constexpr KnownField kResponsesFields[] = {
    {"input", kRead},
    {"instructions", kRead},
    {"max_output_tokens", kRead},
    {"tools", kRead},
    {"tool_choice", kRead},
    {"parallel_tool_calls", kRead},
    {"text", kRead},
    {"reasoning", kRead},
    {"include", kRead},
    {"top_logprobs", kRead},
    {"thinking_token_budget", kRead},
    {"chat_template_kwargs", kRead},

    {"max_tool_calls", kNoEffect, "0"},

    {"store", kRefused, "[false]", "this server keeps no responses"},
    {"previous_response_id", kRefused, {}, "this server keeps no responses: send the whole conversation as input"},
    {"conversation", kRefused, {}, "this server keeps no conversations: send the whole conversation as input"},
    {"background", kRefused, "[false]"},
    {"background_options", kRefused},
    {"prompt", kRefused},
    {"truncation", kRefused, R"(["disabled"])"},
    {"stream_options", kRefused, R"([{}, {"include_obfuscation": false}])"},
    {"context_management", kRefused, "[[]]"},
    {"moderation", kRefused},
    {"prompt_cache_options", kRefused},
    {"access_programs", kRefused},
    {"image", kRefused},
    {"enable_response_messages", kRefused, "[false]"},
    {"previous_input_messages", kRefused},
    {"max_tokens", kRefused, {}, "use max_output_tokens"},
    {"response_format", kRefused, R"([{"type": "text"}])", "use text.format"},
    {"n", kRefused, "[1]"},
    {"best_of", kRefused, "[1]"},
    {"logprobs", kRefused, "[false]", "use include"},
    {"prompt_logprobs", kRefused},
    {"return_token_ids", kRefused, "[false]"},
    {"return_tokens_as_token_ids", kRefused, "[false]"},
};

constexpr KnownField kEmbeddingsFields[] = {
    {"model", kRead},
    {"input", kRead},
    {"messages", kRead},
    {"encoding_format", kRead},
    {"dimensions", kRead},
    {"pooling", kRead},
    {"normalize", kRead},
    {"use_activation", kRead},
    {"add_special_tokens", kRead},
    {"truncate_prompt_tokens", kRead},
    {"truncation_side", kRead},
    {"add_generation_prompt", kRead},
    {"continue_final_message", kRead},
    {"chat_template_kwargs", kRead},
    {"priority", kRead},
    {"cache_salt", kRead},

    {"user", kNoEffect, R"("")"},
    {"request_id", kNoEffect, R"("")"},

    {"embed_dtype", kRefused, R"(["float32"])"},
    {"endianness", kRefused, R"(["native", "little"])"},
    {"padding", kRefused, R"(["do_not_pad"])"},
    {"chat_template", kRefused, {}, "start the server with --chat-template"},
    {"mm_processor_kwargs", kRefused, "[{}]"},
    {"media_io_kwargs", kRefused, "[{}]"},
    {"additional_data", kRefused},
    {"stream", kRefused, "[false]"},
    {"receipt", kRefused, "[false]", "use /v1/chat/completions"},
    {"foe_route", kRefused},
};

const KnownField* find(std::span<const KnownField> fields, std::string_view name) {
  const auto found = std::ranges::find(fields, name, &KnownField::name);
  return found == fields.end() ? nullptr : &*found;
}

// Whether some endpoint has the field.
bool is_known(std::string_view name) {
  return std::ranges::any_of(kAllApis, [&](Api api) { return find_known_field(api, name) != nullptr; });
}

void check_type(const std::string& name, const json& value, const json& example) {
  if (std::string_view(value.type_name()) != example.type_name())
    refuse(name, "expected the type {}, got {}", example.type_name(), excerpt(value));
}

void check_neutral(const std::string& name, const json& value, const KnownField& field) {
  const std::string instead = field.instead.empty() ? "" : fmt::format("; {}", field.instead);
  if (field.values.empty()) refuse(name, "{} is not supported{}", excerpt(value), instead);
  const json neutral = json::parse(field.values);
  if (std::ranges::find(neutral, value) != neutral.end()) return;
  std::string expected;
  for (const json& one : neutral) expected += (expected.empty() ? "" : " or ") + one.dump();
  refuse(name, "expected {}, as nothing else is supported, got {}{}", expected, excerpt(value), instead);
}

}  // namespace

std::span<const KnownField> shared_fields() {
  return kShared;
}

std::span<const KnownField> fields_of(Api api) {
  switch (api) {
    case Api::kCompletions:
      return kCompletions;
    case Api::kChat:
      return kChat;
    case Api::kMessages:
      return kMessagesFields;
    case Api::kResponses:
      return kResponsesFields;
    case Api::kEmbeddings:
      break;
  }
  return kEmbeddingsFields;
}

const KnownField* find_known_field(Api api, std::string_view name) {
  const KnownField* field = find(fields_of(api), name);
  return field || api == Api::kEmbeddings ? field : find(kShared, name);
}

void check_fields(const json& object, Api api) {
  for (const auto& [name, value] : object.items()) {
    if (value.is_null()) continue;
    const KnownField* field = find_known_field(api, name);
    const std::string shown = name.empty() ? "\"\"" : shorten(name);
    if (!field)
      refuse(shown, "expected a field of this endpoint, got {}", is_known(name) ? "one of another" : "an unknown one");
    if (field->use == kNoEffect) check_type(shown, value, json::parse(field->values));
    if (field->use == kRefused) check_neutral(shown, value, *field);
  }
}

}  // namespace foe
