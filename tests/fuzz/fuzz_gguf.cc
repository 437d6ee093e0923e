// Any bytes are refused with an Error, or are a file whose tensors lie inside it and do not overlap, whose keys can be
// read, and whose tokenizer is refused or works.
#include <algorithm>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/error.h"
#include "check_tokenizer.h"
#include "tokenizer/gguf_tokenizer.h"
#include "weights/gguf/gguf_chat.h"
#include "weights/gguf/gguf_header.h"

namespace {

// Each way to read a value returns something or throws Error.
void read_all(const foe::GgufMetadata& keys) {
  const auto attempt = [](const auto& read) {
    try {
      read();
    } catch (const foe::Error&) {
    }
  };
  for (const auto& entry : keys.values()) {
    const std::string_view key = entry.first;
    attempt([&] { keys.integer(key); });
    attempt([&] { keys.number(key); });
    attempt([&] { keys.flag(key); });
    attempt([&] { keys.text(key); });
    attempt([&] { keys.texts(key); });
    attempt([&] { keys.numbers(key); });
  }
  attempt([&] { foe::gguf_end_ids(keys); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const foe::GgufHeader header = foe::parse_gguf_header(std::as_bytes(std::span(data, size)), "fuzz");
    std::vector<foe::TensorInfo> tensors = header.tensors;
    std::ranges::sort(tensors, {}, &foe::TensorInfo::begin);
    for (std::size_t i = 0; i < tensors.size(); ++i)
      FOE_CHECK(tensors[i].begin <= tensors[i].end && tensors[i].end <= size &&
                    (i == 0 || tensors[i - 1].end <= tensors[i].begin),
                "[{}, {}) of {}", tensors[i].begin, tensors[i].end, size);
    read_all(header.metadata);
    foe::check_tokenizer(foe::Tokenizer::from_spec(foe::read_gguf_tokenizer(header.metadata)));
  } catch (const foe::Error&) {
  }
  return 0;
}
