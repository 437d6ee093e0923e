// A tokenizer.model of any bytes, SentencePiece's or tiktoken's, is refused with an Error, or encodes and decodes.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "check_tokenizer.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tiktoken_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const bool tiktoken = foe::is_tiktoken_file(bytes);
    foe::check_tokenizer(
        foe::Tokenizer::from_spec(tiktoken ? foe::parse_tiktoken_file(bytes, foe::tiktoken_rules("TikTokenTokenizer"))
                                           : foe::parse_sentencepiece_model(bytes).spec));
  } catch (const foe::Error&) {
  }
  return 0;
}
