// A tokenizer.json of any bytes is refused with an Error, or encodes and decodes.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "check_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    foe::check_tokenizer(foe::Tokenizer::from_json({reinterpret_cast<const char*>(data), size}));
  } catch (const foe::Error&) {
  }
  return 0;
}
