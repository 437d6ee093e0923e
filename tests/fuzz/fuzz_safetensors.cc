// Any bytes are refused with an Error, or are a file whose tensors lie inside it, side by side, each of its own size.
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/error.h"
#include "weights/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto header = foe::parse_safetensors_header(std::as_bytes(std::span(data, size)), "fuzz");
    std::size_t covered = 0;
    for (std::size_t i = 0; i < header.tensors.size(); ++i) {
      const foe::TensorInfo& info = header.tensors[i];
      FOE_CHECK(info.begin >= 8 && info.begin <= info.end && info.end <= size, "[{}, {}) of {}", info.begin, info.end,
                size);
      FOE_CHECK(i == 0 || header.tensors[i - 1].name < info.name, "{} out of order", info.name);
      std::size_t bits = static_cast<std::size_t>(info.type->bits);
      for (const std::int64_t extent : info.shape) bits *= static_cast<std::size_t>(extent);
      FOE_CHECK(bits == 8 * (info.end - info.begin), "{} bits in {} bytes", bits, info.end - info.begin);
      covered += info.end - info.begin;
    }
    FOE_CHECK(covered <= size - 8, "{} bytes of tensors in a file of {}", covered, size);
  } catch (const foe::Error&) {
  }
  return 0;
}
