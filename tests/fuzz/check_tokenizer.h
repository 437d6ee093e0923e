// What the fuzzers of tokenizer files have any tokenizer do.
#pragma once

#include <string>
#include <string_view>

#include "base/check.h"
#include "tokenizer/tokenizer.h"

namespace foe {

inline void check_tokenizer(const Tokenizer& tokenizer) {
  constexpr std::string_view kTexts[] = {"", "Hello, it's 1999  \r\n\tx<s> <|eos|>the the",
                                         "e\u0301\u00e9 \u8a9e\u3042\u2028\u00a0\u2581 \U0001f44d\u200d\U0001f3fd"};
  for (const std::string_view text : kTexts) {
    for (const bool parse_special : {false, true}) {
      const auto ids = tokenizer.encode(text, {.add_special_tokens = false, .parse_special = parse_special});
      const std::string decoded = tokenizer.decode(ids);
      if (tokenizer.lossless()) FOE_CHECK(decoded == text, "'{}' became '{}'", text, decoded);
      const std::size_t most = tokenizer.bytes_per_token();
      FOE_CHECK(most == 0 || text.size() <= most * ids.size(), "{} bytes in {} ids", text.size(), ids.size());
      StreamDecoder stream(tokenizer);
      std::string streamed;
      for (const auto id : ids) streamed += stream.push(id);
      streamed += stream.finish();
      FOE_CHECK(streamed == decoded, "'{}' streamed as '{}'", decoded, streamed);
    }
    tokenizer.encode(text);
  }
}

}  // namespace foe
