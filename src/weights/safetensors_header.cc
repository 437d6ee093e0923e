#include "weights/safetensors_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/strict_json.h"

namespace foe {
namespace {

using nlohmann::json;

constexpr std::size_t kPrefixBytes = 8;
constexpr const char* kMetadataKey = "__metadata__";

std::string quote(const std::string& text) {
  return excerpt(json(text));
}

// Takes the events of the JSON parser in the only order that a header allows, so that no memory is taken for a file
// that is something else. Offsets stay relative to the data.
class HeaderReader : public json::json_sax_t {
 public:
  HeaderReader(const std::string& source, SafetensorsHeader& header) : source_(source), header_(header) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
  bool number_integer(json::number_integer_t value) override { unexpected(std::to_string(value)); }
  bool number_float(json::number_float_t, const std::string& text) override { unexpected(text); }
  bool binary(json::binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(json::number_unsigned_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) unexpected(std::to_string(value));
    std::vector<std::int64_t>& list = place_ == Place::kShape ? tensor_.shape : offsets_;
    const std::size_t limit = place_ == Place::kShape ? kMaxTensorRank : 2;
    if (list.size() == limit) fail("{}: expected at most {} numbers, got more", where(), limit);
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      fail("{}: expected an integer below 2^63, got {}", where(), value);
    list.push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[key_] = std::move(value);
    } else if (place_ == Place::kTensor && key_ == "dtype") {
      tensor_.type = find_stored_type(value);
      if (!tensor_.type) fail("{}: expected a type of safetensors such as F32 or BF16, got {}", where(), quote(value));
    } else {
      unexpected(quote(value));
    }
    return true;
  }

  bool key(std::string& key) override {
    key_ = std::move(key);
    bool repeated = false;
    if (place_ == Place::kRoot) {
      // Repeated names of tensors are found at the end, when they are sorted.
      repeated = key_ == kMetadataKey && std::exchange(seen_metadata_, true);
      tensor_ = {};
      tensor_.name = key_;
    } else if (place_ == Place::kMetadata) {
      repeated = !header_.metadata.emplace(key_, "").second;
    } else {
      const auto field = std::find(std::begin(kFields), std::end(kFields), key_) - std::begin(kFields);
      if (field == std::ssize(kFields))
        fail("{}: expected only the keys dtype, shape and data_offsets, got {}", where_tensor(), quote(key_));
      repeated = std::exchange(seen_[field], true);
    }
    if (repeated) fail("{}: expected every key once, got {} twice", source_, quote(key_));
    return true;
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kOutside:
        place_ = Place::kRoot;
        break;
      case Place::kRoot:
        place_ = key_ == kMetadataKey ? Place::kMetadata : Place::kTensor;
        offsets_.clear();
        std::fill(std::begin(seen_), std::end(seen_), false);
        break;
      default:
        unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) finish_tensor();
    place_ = place_ == Place::kRoot ? Place::kOutside : Place::kRoot;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") unexpected("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    fail("{}: expected a JSON header, got: {}", source_, shorten(error.what()));
  }

 private:
  enum class Place { kOutside, kRoot, kMetadata, kTensor, kShape, kOffsets };
  static constexpr const char* kFields[] = {"dtype", "shape", "data_offsets"};

  std::string where_tensor() const { return fmt::format("{}: tensor {}", source_, quote(tensor_.name)); }
  std::string where() const { return fmt::format("{}: {}", where_tensor(), key_); }

  [[noreturn]] void unexpected(const std::string& actual) const {
    switch (place_) {
      case Place::kOutside:
        fail("{}: expected a JSON object as header, got {}", source_, actual);
      case Place::kRoot:
        fail("{}: {}: expected an object, got {}", source_, quote(key_), actual);
      case Place::kMetadata:
        fail("{}: {}: {}: expected a string, got {}", source_, kMetadataKey, quote(key_), actual);
      case Place::kTensor:
        fail("{}: expected {}, got {}", where(), key_ == "dtype" ? "a string" : "an array", actual);
      default:
        fail("{}: expected integers of at least 0, got {}", where(), actual);
    }
  }

  void finish_tensor() {
    for (std::size_t field = 0; field < std::size(kFields); ++field)
      if (!seen_[field]) fail("{}: expected the key {}, got none", where_tensor(), kFields[field]);
    if (offsets_.size() != 2) fail("{}: data_offsets: expected 2 numbers, got {}", where_tensor(), offsets_.size());
    if (offsets_[0] > offsets_[1])
      fail("{}: data_offsets: expected begin <= end, got {}", where_tensor(), to_string(offsets_));
    const auto bytes = tensor_bytes(*tensor_.type, tensor_.shape);
    if (!bytes)
      fail("{}: expected a whole number of bytes below 2^60, got shape {} of {}", where_tensor(),
           to_string(tensor_.shape), tensor_.type->name);
    if (*bytes != offsets_[1] - offsets_[0])
      fail("{}: expected {} bytes for shape {} of {}, got data_offsets {}", where_tensor(), *bytes,
           to_string(tensor_.shape), tensor_.type->name, to_string(offsets_));
    tensor_.begin = static_cast<std::size_t>(offsets_[0]);
    tensor_.end = static_cast<std::size_t>(offsets_[1]);
    header_.tensors.push_back(std::move(tensor_));
  }

  const std::string& source_;
  SafetensorsHeader& header_;
  Place place_ = Place::kOutside;
  std::string key_;
  TensorInfo tensor_;
  std::vector<std::int64_t> offsets_;
  bool seen_[std::size(kFields)] = {};
  bool seen_metadata_ = false;
};

std::string_view header_text(std::span<const std::byte> file, const std::string& source) {
  if (file.size() < kPrefixBytes)
    fail("{}: expected a safetensors file of at least {} bytes, got {}", source, kPrefixBytes, file.size());
  std::uint64_t size = 0;
  static_assert(std::endian::native == std::endian::little, "the prefix and all data are little-endian");
  std::memcpy(&size, file.data(), kPrefixBytes);
  if (size > kMaxHeaderBytes)
    fail("{}: expected a header of at most {} bytes, got a length of {}", source, kMaxHeaderBytes, size);
  if (size > file.size() - kPrefixBytes)
    fail("{}: expected a header inside the file of {} bytes, got a length of {}", source, file.size(), size);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kPrefixBytes, size);
  if (!text.starts_with('{'))
    fail("{}: expected a header beginning with '{{', got {}", source,
         text.empty() ? "an empty one" : fmt::format("byte {:#04x}", text[0]));
  return text;
}

void check_layout(std::vector<TensorInfo>& tensors, std::size_t data_begin, std::size_t file_bytes,
                  const std::string& source) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) <
           std::pair(b.begin, b.end);  // by end, too: an empty tensor comes before its neighbour
  });
  std::size_t end = 0;
  for (TensorInfo& tensor : tensors) {
    if (tensor.begin != end)
      fail("{}: tensor {}: expected data_offsets to begin at {}, where the data before ends, got {}", source,
           quote(tensor.name), end, tensor.begin);
    end = tensor.end;
  }
  if (end != file_bytes - data_begin)
    fail("{}: expected {} bytes of data after the header, got {}", source, end, file_bytes - data_begin);
  for (TensorInfo& tensor : tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
}

void sort_by_name(std::vector<TensorInfo>& tensors, const std::string& source) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != tensors.end()) fail("{}: expected every tensor once, got {} twice", source, quote(twice->name));
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source) {
  const std::string_view text = header_text(file, source);
  SafetensorsHeader header;
  HeaderReader reader(source, header);
  // The parser takes a NUL as the end of its input, and would ignore what follows.
  if (const auto nul = text.find('\0'); nul != text.npos)
    fail("{}: expected a JSON header, got a NUL at byte {}", source, kPrefixBytes + nul);
  json::sax_parse(text, &reader);
  check_layout(header.tensors, kPrefixBytes + text.size(), file.size(), source);
  sort_by_name(header.tensors, source);
  return header;
}

std::optional<std::int64_t> tensor_bytes(const StoredType& type, std::span<const std::int64_t> shape) {
  std::int64_t bits = type.bits;
  for (const std::int64_t size : shape)
    if (__builtin_mul_overflow(bits, size, &bits)) return std::nullopt;
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

std::string to_string(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace foe
