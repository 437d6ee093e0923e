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

constexpr KnownField kBoth[] = {
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

    {"user", kNoEffect},
    {"metadata", kNoEffect},
    {"store", kNoEffect},
    {"service_tier", kNoEffect},
    {"safety_identifier", kNoEffect},
    {"prompt_cache_key", kNoEffect},
    {"prompt_cache_retention", kNoEffect},
    {"request_id", kNoEffect},
    {"cache_prompt", kNoEffect},
    {"guided_decoding_backend", kNoEffect},

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
    {"chat_template_kwargs", kRead},
    {"add_generation_prompt", kRead},
    {"continue_final_message", kRead},

    {"echo", kRefused, "[false]"},
    {"chat_template", kRefused, {}, "start the server with --chat-template"},
    {"functions", kRefused, "[[]]", "use tools"},
    {"function_call", kRefused, R"(["none"])", "use tool_choice"},
    {"modalities", kRefused, R"([["text"]])"},
    {"audio", kRefused},
    {"web_search_options", kRefused},
    {"verbosity", kRefused, R"(["medium"])"},
};

const KnownField* find(std::span<const KnownField> fields, std::string_view name) {
  const auto found = std::ranges::find(fields, name, &KnownField::name);
  return found == fields.end() ? nullptr : &*found;
}

}  // namespace

std::span<const KnownField> fields_of_both() {
  return kBoth;
}

std::span<const KnownField> fields_of(Api api) {
  if (api == Api::kChat) return kChat;
  return kCompletions;
}

void check_fields(const json& object, Api api) {
  for (const auto& [name, value] : object.items()) {
    if (value.is_null()) continue;
    const KnownField* field = find(kBoth, name);
    if (!field) field = find(fields_of(api), name);
    const std::string shown = name.empty() ? "\"\"" : shorten(name);
    if (!field) {
      const Api other = api == Api::kChat ? Api::kCompletions : Api::kChat;
      refuse(shown, "expected a field of this endpoint, got {}",
             find(fields_of(other), name) ? "one of the other" : "an unknown one");
    }
    if (field->use != kRefused) continue;
    const json neutral = field->neutral.empty() ? json::array() : json::parse(field->neutral);
    if (std::ranges::find(neutral, value) != neutral.end()) continue;
    refuse(shown, "{} is not supported{}{}", excerpt(value), field->instead.empty() ? "" : "; ", field->instead);
  }
}

}  // namespace foe
