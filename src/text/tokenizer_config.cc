#include "text/tokenizer_config.h"

#include <filesystem>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "text/json_fields.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 26;  // some are large because of added tokens

// Returns the object in a file, or an empty one if the file does not exist.
json load_object(const std::string& path) {
  std::error_code status;
  if (!std::filesystem::exists(path, status) && !status) return json::object();
  json object = parse_strict_json(read_text_file(path, kMaxConfigBytes), path);
  if (!object.is_object()) fail("{}: expected an object, got {}", path, excerpt(object));
  return object;
}

}  // namespace

json load_tokenizer_config(const std::string& model_dir) {
  json config = load_object(model_dir + "/tokenizer_config.json");
  if (config.contains("added_tokens_decoder")) return config;
  config.update(load_object(model_dir + "/special_tokens_map.json"));
  return config;
}

std::optional<std::string> special_token_text(const json& config, const std::string& name) {
  const JsonField token = JsonField{config, ""}[name];
  if (token.null()) return std::nullopt;
  return token.value.is_object() ? token["content"].string() : token.string();
}

}  // namespace foe
