// A tokenizer.json of any bytes is refused with an Error, or encodes and decodes.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::string_view kTexts[] = {"", "Hello, it's 1999  \r\n\tx<s> <|eos|>the the",
                                         "e\u0301\u00e9 \u8a9e\u3042\u2028\u00a0 \U0001f44d\u200d\U0001f3fd"};
  try {
    const foe::Tokenizer tokenizer = foe::Tokenizer::from_json({reinterpret_cast<const char*>(data), size});
    for (const std::string_view text : kTexts) {
      for (const bool parse_special : {false, true}) {
        const auto ids = tokenizer.encode(text, {.add_special_tokens = false, .parse_special = parse_special});
        const std::string decoded = tokenizer.decode(ids);
        if (tokenizer.lossless()) FOE_CHECK(decoded == text, "'{}' became '{}'", text, decoded);
        foe::StreamDecoder stream(tokenizer);
        std::string streamed;
        for (const auto id : ids) streamed += stream.push(id);
        streamed += stream.finish();
        FOE_CHECK(streamed == decoded, "'{}' streamed as '{}'", decoded, streamed);
      }
      tokenizer.encode(text);
    }
  } catch (const foe::Error&) {
  }
  return 0;
}
