// A body of any bytes, to any endpoint that reads one, is refused with an ApiError, or is a request that the engine can
// be given. The first byte chooses the endpoint.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "server/api/embedding_request.h"
#include "server/api/generation_request.h"
#include "server/api/messages_api.h"
#include "server/api/tokenize_api.h"
#include "server/http/api_error.h"

namespace {

const foe::ServedModel& model() {
  static const foe::ServedModel kModel{
      .name = "m",
      .vocab_size = 561,
      .max_positions = 512,
      .hidden_size = 48,
      .max_choices = 64,
      .tokenizer = foe::Tokenizer::load(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json"),
      .chat_template = foe::ChatTemplate::parse("{{ messages | tojson }}{{ tools }}")};
  return kModel;
}

void check(const foe::EmbeddingRequest& request) {
  FOE_CHECK(request.inputs.size() <= foe::kMaxInputs, "{} inputs", request.inputs.size());
  for (const foe::Request& r : foe::engine_requests(request)) {
    FOE_CHECK(r.pools() && r.max_tokens == 0 && !r.prompt.empty(), "{} tokens, at most {} more", r.prompt.size(),
              r.max_tokens);
    FOE_CHECK(static_cast<int>(r.prompt.size()) <= model().max_positions, "{} positions", r.prompt.size());
    for (const std::int32_t id : r.prompt) FOE_CHECK(id >= 0 && id < model().vocab_size, "token {}", id);
  }
}

void check(const foe::GenerationRequest& request) {
  FOE_CHECK(request.choices() <= model().max_choices, "{} choices", request.choices());
  for (const foe::Request& r : foe::engine_requests(request, {0})) {
    FOE_CHECK(!r.prompt.empty() && r.max_tokens > 0, "{} tokens, at most {} more", r.prompt.size(), r.max_tokens);
    FOE_CHECK(static_cast<int>(r.prompt.size()) + r.max_tokens <= model().max_positions, "{} + {} positions",
              r.prompt.size(), r.max_tokens);
    for (const std::int32_t id : r.prompt) FOE_CHECK(id >= 0 && id < model().vocab_size, "token {}", id);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (static_cast<std::uint8_t>(data[0] - '0') % 7) {
      case 0:
        check(foe::parse_completion_request(body, model()));
        break;
      case 1:
        check(foe::parse_chat_request(body, model()));
        break;
      case 2:
        foe::tokenize(body, model());
        break;
      case 3:
        foe::detokenize(body, model());
        break;
      case 4:
        foe::count_message_tokens(body, model());
        check(foe::parse_messages_request(body, model()));
        break;
      case 5:
        check(foe::parse_responses_request(body, model()));
        break;
      case 6:
        check(foe::parse_embedding_request(body, model()));
        break;
    }
  } catch (const foe::ApiError&) {
  } catch (const foe::Error&) {  // of the chat's text
  }
  return 0;
}
