// Any bytes are refused as a receipt with an Error, or are one that is the same when it is written and read again, and
// whose digests are right then. Its answers end within the tokens that are there.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "server/api/receipt.h"

namespace {

void check_ends(const foe::Receipt& receipt) {
  static const foe::Tokenizer kTokenizer = foe::Tokenizer::load(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json");
  for (std::size_t i = 0; i < receipt.choices.size(); ++i) {
    const std::size_t tokens = receipt.choices[i].tokens.size();
    const foe::AnswerEnd end = foe::end_of_answer(receipt, i, kTokenizer);
    FOE_CHECK(end.tokens <= tokens, "{} of {} tokens", end.tokens, tokens);
    FOE_CHECK(end.reason || end.tokens == tokens, "no end at {} of {}", end.tokens, tokens);
  }
}

std::optional<foe::Receipt> parsed(std::string_view text) {
  try {
    return foe::parse_receipt(text, "receipt");
  } catch (const foe::Error&) {
    return {};
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::optional<foe::Receipt> receipt = parsed({reinterpret_cast<const char*>(data), size});
  if (!receipt) return 0;
  const std::string once = foe::receipt_text(*receipt);
  const std::optional<foe::Receipt> again = parsed(once);
  FOE_CHECK(again && foe::receipt_text(*again) == once, "changed by a round trip: {}", once);
  FOE_CHECK(foe::changed_member(*again).empty(), "{} is not what its digest says", foe::changed_member(*again));
  check_ends(*receipt);
  return 0;
}
