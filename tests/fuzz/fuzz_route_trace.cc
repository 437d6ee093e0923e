// Any bytes are refused with an Error, or are a record of routes whose sequences are in order and whose experts are
// those of its model. The first byte says whether the rest is base64, as requests have it.
#include <cmath>
#include <cstdint>
#include <span>
#include <string>

#include "base/check.h"
#include "base/error.h"
#include "text/base64.h"
#include "trace/route_file.h"

namespace {

void check(std::span<const std::byte> bytes) {
  const foe::RouteFile file(bytes, "fuzz");
  for (const std::int64_t sequence : file.sequences()) {
    const foe::SequenceRoute record = file.route(sequence);
    const foe::Route& route = record.route;
    const std::size_t K = route.entries;
    FOE_CHECK(static_cast<int>(record.tokens.size()) == route.tokens() && route.tokens() > 0, "{} tokens of {}",
              record.tokens.size(), route.tokens());
    for (std::size_t i = 0; i < route.experts_TLK.size(); ++i) {
      const int expert = route.experts_TLK[i], layer = static_cast<int>(i / K) % route.layers;
      FOE_CHECK(expert >= foe::kNotRun && expert < file.origin().experts[layer], "expert {}", expert);
      if (expert < 0) continue;
      FOE_CHECK(i % K == 0 || route.experts_TLK[i - 1] < expert, "expert {} out of order", expert);
      FOE_CHECK(i % K == 0 || route.experts_TLK[i - 1] >= 0, "expert {} behind none", expert);
      FOE_CHECK(std::isfinite(route.weights_TLK[i]) && route.weights_TLK[i] >= 0, "weight {}", route.weights_TLK[i]);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> rest = std::as_bytes(std::span(data + 1, size - 1));
  try {
    if (data[0] % 2 == 0) {
      check(rest);
    } else if (const auto bytes = foe::decode_base64({reinterpret_cast<const char*>(rest.data()), rest.size()})) {
      FOE_CHECK(bytes->size() / 3 <= rest.size() / 4, "{} bytes of {}", bytes->size(), rest.size());
      check(std::as_bytes(std::span(*bytes)));
    }
  } catch (const foe::Error&) {
  }
  return 0;
}
