#include "server/api/generation_defaults.h"

#include <filesystem>
#include <limits>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"
#include "base/text_file.h"
#include "engine/sampler.h"
#include "weights/gguf/gguf_shards.h"

namespace foe {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

class DefaultsReader {
 public:
  DefaultsReader(const nlohmann::json& object, GenerationDefaults& defaults) : object_(object), defaults_(defaults) {}

  void read() {
    SamplingParams& p = defaults_.sampling;
    number("temperature", p.temperature);
    if (!find("temperature") && object_.value("do_sample", nlohmann::json()) == true) {
      p.temperature = 1;
      describe("temperature", 1);
    }
    number("top_p", p.top_p);
    number("min_p", p.min_p);
    number("repetition_penalty", p.repetition_penalty);
    if (const auto top_k = integer("top_k", -1)) p.top_k = std::max(0, *top_k);
    defaults_.max_tokens = integer("max_new_tokens", 1);
    validate(p);
  }

 private:
  const nlohmann::json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  void describe(const char* key, double value) {
    defaults_.described += fmt::format("{}{} {:.6g}", defaults_.described.empty() ? "" : ", ", key, value);
  }
  void number(const char* key, float& value) {
    const nlohmann::json* given = find(key);
    if (!given) return;
    if (!given->is_number()) fail("{}: expected a number, got {}", key, excerpt(*given));
    value = given->get<float>();
    describe(key, given->get<double>());
  }
  std::optional<int> integer(const char* key, int low) {
    const nlohmann::json* given = find(key);
    if (!given) return {};
    if (!given->is_number_integer() || *given < low || *given > std::numeric_limits<int>::max())
      fail("{}: expected an integer of at least {}, got {}", key, low, excerpt(*given));
    describe(key, given->get<int>());
    return given->get<int>();
  }

  const nlohmann::json& object_;
  GenerationDefaults& defaults_;
};

}  // namespace

GenerationDefaults load_generation_defaults(const std::string& model_dir, const std::string& from) {
  GenerationDefaults defaults;
  if (from == "none" || (from == "auto" && is_gguf_path(model_dir))) return defaults;
  defaults.path = (from == "auto" ? model_dir : from) + "/generation_config.json";
  std::error_code status;
  if (from == "auto" && !std::filesystem::exists(defaults.path, status) && !status) return defaults;
  const nlohmann::json object = parse_strict_json(read_text_file(defaults.path, kMaxBytes), defaults.path);
  if (!object.is_object()) fail("{}: expected an object, got {}", defaults.path, excerpt(object));
  try {
    DefaultsReader(object, defaults).read();
  } catch (const Error& error) {
    fail("{}: {}; mend it, or start with --generation-config none", defaults.path, error.what());
  }
  return defaults;
}

}  // namespace foe
