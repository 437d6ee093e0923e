#include "weights/gguf/gguf_chat.h"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

constexpr int kControl = 3;  // in tokenizer.ggml.token_type
constexpr std::string_view kEndOfMessage = "<|end|>";
// "<|end|>" ends a message in the middle of an answer where the model has this one, too.
constexpr std::string_view kEndOfAnswer = "<|return|>";
constexpr std::string_view kEnds[] = {"<|eot_id|>",    "<|eom_id|>",  "<|im_end|>", "<|end_of_text|>", "<|endoftext|>",
                                      "<end_of_turn>", kEndOfMessage, kEndOfAnswer, "<|end_of_turn|>", "<|call|>"};

}  // namespace

nlohmann::json gguf_tokenizer_config(const std::string& path) {
  const TensorFile file(gguf_shards(path).front());
  if (!file.gguf()) fail("{}: expected a GGUF file, got another one", path);
  const GgufMetadata& metadata = *file.gguf();
  nlohmann::json config = nlohmann::json::object();
  if (const auto text = metadata.text("tokenizer.chat_template")) config["chat_template"] = *text;
  const auto tokens = metadata.texts("tokenizer.ggml.tokens");
  const auto add = [&](const char* name, const char* key) {
    const auto id = metadata.integer(key);
    if (tokens && id && *id >= 0 && *id < static_cast<std::int64_t>(tokens->size())) config[name] = (*tokens)[*id];
  };
  add("bos_token", "tokenizer.ggml.bos_token_id");
  add("eos_token", "tokenizer.ggml.eos_token_id");
  add("unk_token", "tokenizer.ggml.unknown_token_id");
  add("pad_token", "tokenizer.ggml.padding_token_id");
  return config;
}

std::vector<std::int64_t> gguf_end_ids(const GgufMetadata& metadata) {
  std::set<std::int64_t> ids;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = metadata.integer(key); id && *id >= 0 && *id < INT32_MAX) ids.insert(*id);
  const auto tokens = metadata.texts("tokenizer.ggml.tokens");
  const auto types = metadata.numbers("tokenizer.ggml.token_type");
  if (tokens && types && tokens->size() == types->size()) {
    const bool answers = std::ranges::find(*tokens, kEndOfAnswer) != tokens->end();
    for (std::size_t i = 0; i < tokens->size(); ++i)
      if ((*types)[i] == kControl && std::ranges::find(kEnds, (*tokens)[i]) != std::end(kEnds) &&
          !(answers && (*tokens)[i] == kEndOfMessage))
        ids.insert(static_cast<std::int64_t>(i));
  }
  return {ids.begin(), ids.end()};
}

}  // namespace foe
