#include "weights/tensor_writer.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "weights/atomic_file.h"
#include "weights/safetensors_header.h"

namespace foe {
namespace {

const StoredType* stored_type(DType dtype) {
  const auto it = std::find_if(std::begin(kStoredTypes), std::end(kStoredTypes),
                               [dtype](const StoredType& type) { return type.dtype == dtype; });
  FOE_CHECK(it != std::end(kStoredTypes), "{}", to_string(dtype));
  return it;
}

std::size_t byte_count(const TensorSource& source) {
  const auto bytes = tensor_bytes(*source.type, source.shape);
  FOE_CHECK(bytes && *bytes >= 0 && source.shape.size() <= kMaxTensorRank, "{}: shape {}", source.name,
            to_string(source.shape));
  return static_cast<std::size_t>(*bytes);
}

void write_bf16(std::span<const float> values, const TensorSource::Sink& sink) {
  std::array<BF16, 4096> piece;
  while (!values.empty()) {
    const auto part = values.first(std::min(values.size(), piece.size()));
    std::transform(part.begin(), part.end(), piece.begin(), to_bf16);
    sink(std::as_bytes(std::span(piece).first(part.size())));
    values = values.subspan(part.size());
  }
}

void write_floats(DType dtype, std::span<const float> values, const TensorSource::Sink& sink) {
  if (dtype == DType::kF32)
    sink(std::as_bytes(values));
  else
    write_bf16(values, sink);
}

std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump();
}

// Returns the length and the JSON, padded so that the data begins at a multiple of 64 bytes, a cache line.
std::string header_bytes(const std::vector<TensorSource>& sources, const std::map<std::string, std::string>& metadata) {
  std::string text = fmt::format("{{\"__metadata__\":{}", nlohmann::json(metadata).dump());
  std::set<std::string_view> names = {"__metadata__"};
  std::size_t offset = 0;
  for (const TensorSource& source : sources) {
    FOE_CHECK(names.insert(source.name).second, "{} twice", source.name);
    const std::size_t end = offset + byte_count(source);
    text += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", json_string(source.name),
                        source.type->name, fmt::join(source.shape, ","), offset, end);
    offset = end;
  }
  text += '}';
  constexpr std::size_t kPrefix = 8, kAlignment = 64;
  text.resize((kPrefix + text.size() + kAlignment - 1) / kAlignment * kAlignment - kPrefix, ' ');
  FOE_CHECK(text.size() <= kMaxHeaderBytes, "a header of {} bytes", text.size());
  std::string prefix;
  for (std::size_t byte = 0; byte < kPrefix; ++byte) prefix += static_cast<char>(text.size() >> (8 * byte) & 0xff);
  return prefix + text;
}

}  // namespace

TensorSource float_source(std::string name, DType dtype, std::vector<std::int64_t> shape,
                          std::span<const float> values) {
  TensorSource source{std::move(name), stored_type(dtype), std::move(shape), {}};
  FOE_CHECK(values.size() * size_of(dtype) == byte_count(source), "{}: {} values for shape {}", source.name,
            values.size(), to_string(source.shape));
  source.write = [dtype, values](const TensorSource::Sink& sink) { write_floats(dtype, values, sink); };
  return source;
}

TensorSource generated_source(std::string name, DType dtype, std::vector<std::int64_t> shape,
                              std::function<void(std::size_t first, std::span<float> out)> fill) {
  TensorSource source{std::move(name), stored_type(dtype), std::move(shape), {}};
  const std::size_t elements = byte_count(source) / size_of(dtype);
  source.write = [dtype, elements, fill = std::move(fill)](const TensorSource::Sink& sink) {
    std::vector<float> piece(std::min(elements, std::size_t{1} << 16));
    for (std::size_t first = 0; first < elements; first += piece.size()) {
      const auto out = std::span(piece).first(std::min(piece.size(), elements - first));
      fill(first, out);
      write_floats(dtype, out, sink);
    }
  };
  return source;
}

TensorSource weight_source(std::string name, const Tensor& tensor, DType otherwise) {
  if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kBF16)
    return generated_source(std::move(name), otherwise, tensor.shape,
                            [tensor](std::size_t first, std::span<float> out) {
                              read_floats(tensor, static_cast<std::int64_t>(first), out);
                            });
  return {std::move(name), stored_type(tensor.dtype), tensor.shape,
          [tensor](const TensorSource::Sink& sink) { sink(tensor.bytes); }};
}

TensorSource byte_source(std::string name, std::string_view type, std::vector<std::int64_t> shape,
                         std::span<const std::byte> bytes) {
  TensorSource source{std::move(name), find_stored_type(type), std::move(shape), {}};
  FOE_CHECK(source.type, "{}: type {}", source.name, type);
  FOE_CHECK(bytes.size() == byte_count(source), "{}: {} bytes for shape {}", source.name, bytes.size(),
            to_string(source.shape));
  source.write = [bytes](const TensorSource::Sink& sink) { sink(bytes); };
  return source;
}

void write_tensor_file(const std::string& path, std::vector<TensorSource> sources,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(sources.begin(), sources.end(), [](const TensorSource& a, const TensorSource& b) {
    return a.type->bits == b.type->bits ? a.name < b.name : a.type->bits > b.type->bits;
  });
  AtomicFile file(path);
  file.write(header_bytes(sources, metadata));
  for (const TensorSource& source : sources) {
    std::size_t written = 0;
    source.write([&](std::span<const std::byte> bytes) {
      written += bytes.size();
      file.write(bytes);
    });
    FOE_CHECK(written == byte_count(source), "{}: {} bytes for shape {}", source.name, written,
              to_string(source.shape));
  }
  file.commit();
}

}  // namespace foe
