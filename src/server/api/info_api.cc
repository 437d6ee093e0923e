#include "server/api/info_api.h"

#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "server/api/json_text.h"
#include "server/http/api_error.h"
#include "text/hex.h"
#include "text/tokenizer_config.h"
#include "weights/gguf/gguf_chat.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

using json = nlohmann::ordered_json;

json card(const std::string& model, std::int64_t created, int max_positions) {
  return {{"id", model},
          {"object", "model"},
          {"created", created},
          {"owned_by", "foe"},
          {"root", model},
          {"parent", nullptr},
          {"max_model_len", max_positions}};
}

// Returns the text that a part of a path means; an ill-formed escape stands for itself.
std::string percent_decoded(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0;
    if (!escape) {
      result += text[i];
      continue;
    }
    result += static_cast<char>(16 * hex_digit(text[i + 1]) + hex_digit(text[i + 2]));
    i += 2;
  }
  return result;
}

}  // namespace

std::string models_body(const std::string& model, std::int64_t created, int max_positions) {
  return json_text({{"object", "list"}, {"data", json::array({card(model, created, max_positions)})}});
}

std::string model_body(const std::string& path, const std::string& model, std::int64_t created, int max_positions) {
  const std::string id = percent_decoded(std::string_view(path).substr(std::string_view("/v1/models/").size()));
  if (id != model)
    throw ApiError(404, "model",
                   fmt::format("The model `{}` does not exist: this server has `{}`.", shorten(id), model));
  return json_text(card(model, created, max_positions));
}

std::string version_body(const std::string& version) {
  return json_text({{"version", version}});
}

std::string tokenizer_info_body(const std::string& model_dir, const ServedModel& model) {
  json info = is_gguf_path(model_dir) ? gguf_tokenizer_config(model_dir) : load_tokenizer_config(model_dir);
  if (!info.contains("tokenizer_class")) info["tokenizer_class"] = "PreTrainedTokenizerFast";
  if (const std::string source = model.chat_template.source(); !source.empty()) info["chat_template"] = source;
  return json_text(info);
}

}  // namespace foe
