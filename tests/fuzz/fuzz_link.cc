// Any bytes from the other end of the link are refused with an Error, or are messages that are the same when they are
// written and read again. The first byte chooses the direction.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "server/ranks/link.h"

namespace {

template <typename Message>
void check(std::string_view payload, Message (*parse)(std::string_view)) {
  std::string once, twice;
  foe::append_message(once, parse(payload));
  foe::MessageBuffer buffer;
  buffer.append(once);
  const auto again = buffer.next();
  FOE_CHECK(again && !again->empty(), "a message of {} bytes", once.size());
  foe::append_message(twice, parse(*again));
  FOE_CHECK(once == twice, "changed by a round trip, {} bytes", once.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  foe::MessageBuffer buffer;
  buffer.append({reinterpret_cast<const char*>(data) + 1, size - 1});
  try {
    while (const auto payload = buffer.next()) {
      if (data[0] % 2 == 0)
        check(*payload, foe::parse_to_ranks);
      else
        check(*payload, foe::parse_from_ranks);
    }
  } catch (const foe::Error&) {
  }
  return 0;
}
