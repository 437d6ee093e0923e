// A chat template of any bytes, with any messages, is refused with an Error or renders. The input is the
// messages' JSON, a zero byte and the template; without a zero byte it is a template for two messages.
#include <cstdint>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  nlohmann::ordered_json messages = {{{"role", "user"}, {"content", "a \u00e9\n"}},
                                     {{"role", "assistant"}, {"x", {1.5}}}};
  if (zero != std::string_view::npos) {
    messages = nlohmann::ordered_json::parse(input.substr(0, zero), nullptr, /*allow_exceptions=*/false);
    if (messages.is_discarded()) return 0;
  }
  try {
    const auto chat_template = foe::ChatTemplate::parse(input.substr(zero + 1));  // npos + 1 is 0
    chat_template.render(messages, {{"tools", messages}}, {.now = 0});
  } catch (const foe::Error&) {
  }
  return 0;
}
