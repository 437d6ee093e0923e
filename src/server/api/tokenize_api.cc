#include "server/api/tokenize_api.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/request_fields.h"
#include "text/utf8.h"

namespace foe {

using json = nlohmann::ordered_json;

namespace {

constexpr std::string_view kTokenizeFields[] = {"model",
                                                "prompt",
                                                "messages",
                                                "add_special_tokens",
                                                "return_token_strs",
                                                "tools",
                                                "documents",
                                                "chat_template_kwargs",
                                                "add_generation_prompt",
                                                "continue_final_message",
                                                "reasoning_effort",
                                                "truncate_prompt_tokens",
                                                "truncation_side"};

std::vector<std::int32_t> read_text(const json& object, const ServedModel& model) {
  if (find_field(object, "messages")) return encode_chat(object, model).ids;
  const json* prompt = find_field(object, "prompt");
  if (!prompt || !prompt->is_string())
    refuse("prompt", "expected a string, or messages, got {}", prompt ? excerpt(*prompt) : "none");
  return encode_prompt(prompt->get_ref<const std::string&>(), "prompt", model,
                       {.add_special_tokens = read_bool(object, "add_special_tokens", true)});
}

}  // namespace

std::string tokenize(std::string_view body, const ServedModel& model) {
  const JsonBody object = parse_object(body);
  for (const auto& [name, value] : object.items())
    if (!value.is_null() && std::ranges::find(kTokenizeFields, name) == std::end(kTokenizeFields))
      refuse(shorten(name), "expected {}, got an unknown field", fmt::join(kTokenizeFields, ", "));
  check_model(object, model);
  const std::vector<std::int32_t> ids = truncated(object, model, read_text(object, model));
  json answer{{"count", ids.size()}, {"max_model_len", model.max_positions}, {"tokens", ids}, {"token_strs", nullptr}};
  if (read_bool(object, "return_token_strs", false)) {
    answer["token_strs"] = json::array();
    for (const std::int32_t id : ids) {
      std::string text;  // as in the vocabulary, where a space is another character
      append_lossy_utf8(text, model.tokenizer.token_name(id), /*last=*/true);
      answer["token_strs"].push_back(std::move(text));
    }
  }
  return answer.dump();
}

std::string detokenize(std::string_view body, const ServedModel& model) {
  const JsonBody object = parse_object(body);
  check_model(object, model);
  const json* tokens = find_field(object, "tokens");
  if (!tokens) refuse("tokens", "expected a list of token ids, got none");
  // The limit bounds the work of a request: four times the tokens that the context has.
  const auto ids = read_ids(*tokens, "tokens", 4 * static_cast<std::size_t>(model.max_positions), model.vocab_size);
  return json{{"prompt", model.tokenizer.decode(ids)}}.dump();
}

}  // namespace foe
