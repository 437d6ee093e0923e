// Any text is refused with an Error, or is a valid configuration that survives being written and read again.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "core/model_tensors.h"
#include "weights/config_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  foe::ModelConfig config;
  try {
    config = foe::parse_model_config({reinterpret_cast<const char*>(data), size});
  } catch (const foe::Error&) {
    return 0;
  }
  // Nothing may throw from here on.
  foe::validate(config);
  FOE_CHECK(foe::parameter_count(config) >= foe::active_parameter_count(config), "{} parameters, {} active",
            foe::parameter_count(config), foe::active_parameter_count(config));
  const std::string text = foe::model_config_json(config);
  foe::ModelConfig back = foe::parse_model_config(text);
  back.model_type = config.model_type;
  FOE_CHECK(back == config, "changed by a round trip: {}", text);
  return 0;
}
