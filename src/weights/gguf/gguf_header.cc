#include "weights/gguf/gguf_header.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "weights/gguf/gguf_types.h"

namespace foe {
namespace {

using Type = GgufValue::Type;

constexpr std::size_t kMaxNameBytes = 65535;
constexpr std::uint32_t kMaxDimensions = 4;
constexpr std::uint64_t kMaxAlignment = 1 << 20;
constexpr std::string_view kMagic = "GGUF";

// Bytes of a value of a type; 0: it says itself how many.
constexpr std::size_t kTypeBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr const char* kTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};

std::size_t bytes_of_type(Type type) {
  return kTypeBytes[static_cast<std::size_t>(type)];
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A name is part of messages and of other names.
std::string quoted(std::string_view name) {
  std::string text = "'";
  for (const char c : name.substr(0, 100)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + "'";
}

// Takes values off the front of a file's bytes.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, const std::string& source) : rest_(bytes), source_(source) {}

  std::size_t left() const { return rest_.size(); }
  std::span<const std::byte> rest() const { return rest_; }

  std::span<const std::byte> take(std::uint64_t size, std::string_view what) {
    if (size > rest_.size())
      fail("{}: expected {} of {} bytes, got the end of the file after {}: it is damaged, or was not copied whole",
           source_, what, size, rest_.size());
    const std::span<const std::byte> bytes = rest_.first(size);
    rest_ = rest_.subspan(size);
    return bytes;
  }

  template <typename T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }

  // A number of things that take at least so many bytes each.
  std::uint64_t count(std::size_t bytes_each, std::string_view what) {
    const auto count = number<std::uint64_t>(what);
    if (count > rest_.size() / bytes_each)
      fail("{}: expected {} that fits into the file's {} further bytes, got {}", source_, what, rest_.size(), count);
    return count;
  }

  std::string_view text(std::string_view what) { return as_text(take(number<std::uint64_t>(what), what)); }

  std::string_view name(std::string_view what) {
    const std::string_view name = text(what);
    const auto plain = [](char c) { return c > ' ' && c <= '~'; };
    if (name.empty() || name.size() > kMaxNameBytes || !std::ranges::all_of(name, plain))
      fail("{}: expected {} of 1 to {} printable characters, got {}", source_, what, kMaxNameBytes, quoted(name));
    return name;
  }

 private:
  std::span<const std::byte> rest_;
  const std::string& source_;
};

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> file, const std::string& source)
      : file_(file), source_(source), reader_(file, source) {}

  GgufHeader parse() {
    read_beginning();
    std::map<std::string_view, GgufValue> values;
    for (std::uint64_t i = 0; i < keys_; ++i) {
      const std::string_view key = reader_.name("the name of a key");
      if (!values.emplace(key, value(key)).second) fail("{}: {}: expected a key once, got it twice", source_, key);
    }
    GgufHeader header{GgufMetadata(source_, std::move(values)), {}};
    const std::uint64_t alignment = alignment_of(header.metadata);
    for (std::uint64_t i = 0; i < tensors_; ++i) header.tensors.push_back(tensor(alignment));
    place(header.tensors, alignment);
    return header;
  }

 private:
  void read_beginning() {
    if (!is_gguf(file_)) fail("{}: expected a file that begins with \"GGUF\", got another one", source_);
    reader_.take(kMagic.size(), "the magic number");
    const auto version = reader_.number<std::uint32_t>("the version");
    if (version != 2 && version != 3)
      fail("{}: expected GGUF version 2 or 3, got {}", source_,
           version == 1               ? "1: convert the model again"
           : (version & 0xffffu) == 0 ? "a file of a big-endian machine"
                                      : std::to_string(version));
    tensors_ = reader_.count(24, "a number of tensors");
    keys_ = reader_.count(13, "a number of keys");
  }

  Type type(std::string_view key) {
    const auto number = reader_.number<std::uint32_t>("the type of a value");
    if (number >= std::size(kTypeBytes))
      fail("{}: {}: expected a type of values from 0 to {}, got {}", source_, key, std::size(kTypeBytes) - 1, number);
    return static_cast<Type>(number);
  }

  GgufValue value(std::string_view key) {
    GgufValue value;
    value.type = value.element = type(key);
    if (value.type == Type::kArray) {
      value.element = type(key);
      if (value.element == Type::kArray) fail("{}: {}: expected no array of arrays, got one", source_, key);
      value.count = reader_.count(std::max<std::size_t>(bytes_of_type(value.element), 1), "the length of an array");
    }
    const std::span<const std::byte> begin = reader_.rest();
    if (value.element == Type::kString) {
      for (std::uint64_t i = 0; i < value.count; ++i) reader_.text("a string");
    } else {
      reader_.take(value.count * bytes_of_type(value.element), "a value");
    }
    value.bytes = begin.first(begin.size() - reader_.left());
    return value;
  }

  std::uint64_t alignment_of(const GgufMetadata& metadata) const {
    const std::int64_t alignment = metadata.integer("general.alignment").value_or(32);
    if (alignment < 1 || alignment > static_cast<std::int64_t>(kMaxAlignment) || (alignment & (alignment - 1)) != 0)
      fail("{}: general.alignment: expected a power of two up to {}, got {}", source_, kMaxAlignment, alignment);
    return static_cast<std::uint64_t>(alignment);
  }

  // Of a tensor, `begin` is still its place in the data, and `end` its size.
  TensorInfo tensor(std::uint64_t alignment) {
    TensorInfo info;
    info.name = reader_.name("the name of a tensor");
    const auto dimensions = reader_.number<std::uint32_t>("a number of dimensions");
    if (dimensions < 1 || dimensions > kMaxDimensions)
      fail("{}: {}: expected 1 to {} dimensions, got {}", source_, info.name, kMaxDimensions, dimensions);
    std::uint64_t elements = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      const auto size = reader_.number<std::uint64_t>("a dimension");
      if (size < 1 || size > static_cast<std::uint64_t>(INT64_MAX) / elements)
        fail("{}: {}: expected dimensions of at least 1, with a product that fits into 63 bits, got {} after {}",
             source_, info.name, size, elements);
      elements *= size;
      info.shape.insert(info.shape.begin(), static_cast<std::int64_t>(size));
    }
    const auto number = reader_.number<std::uint32_t>("the type of a tensor");
    const GgufType* type = find_gguf_type(number);
    if (!type) fail("{}: {}: expected a type of GGUF, got the number {}", source_, info.name, number);
    const auto row = static_cast<std::uint64_t>(info.shape.back());
    if (row % type->elements != 0)
      fail("{}: {}: expected rows of whole blocks of {} elements, as it is of type {}, got {}", source_, info.name,
           type->elements, type->type.name, row);
    info.type = &type->type;
    if (elements / type->elements > INT64_MAX / type->bytes)
      fail("{}: {}: expected a size that fits into 63 bits, got {}", source_, info.name, to_string(info.shape));
    info.end = elements / type->elements * type->bytes;
    info.begin = reader_.number<std::uint64_t>("the offset of a tensor");
    if (info.begin % alignment != 0)
      fail("{}: {}: expected an offset that is a multiple of general.alignment = {}, got {}", source_, info.name,
           alignment, info.begin);
    return info;
  }

  // Makes ranges of the file of the tensors' places, and orders the tensors by name.
  void place(std::vector<TensorInfo>& tensors, std::uint64_t alignment) const {
    if (tensors.empty()) return;
    const std::uint64_t header = file_.size() - reader_.left();
    const std::uint64_t data = (header + alignment - 1) / alignment * alignment;
    const std::uint64_t size = data > file_.size() ? 0 : file_.size() - data;
    std::ranges::sort(tensors, {}, &TensorInfo::begin);
    std::uint64_t used = 0;
    for (TensorInfo& info : tensors) {
      if (info.begin < used)
        fail("{}: {}: expected tensors that do not overlap, got one at {} behind one that ends at {}", source_,
             info.name, info.begin, used);
      if (info.begin > size || info.end > size - info.begin)
        fail(
            "{}: {}: expected {} bytes at {} of the data, got {} bytes of data: the file is damaged, or was not copied "
            "whole",
            source_, info.name, info.end, info.begin, size);
      used = info.begin + info.end;
      info.begin += data;
      info.end += info.begin;
    }
    std::ranges::sort(tensors, {}, &TensorInfo::name);
    const auto twice = std::ranges::adjacent_find(tensors, {}, &TensorInfo::name);
    if (twice != tensors.end()) fail("{}: {}: expected a tensor once, got it twice", source_, twice->name);
  }

  std::span<const std::byte> file_;
  const std::string& source_;
  ByteReader reader_;
  std::uint64_t tensors_ = 0, keys_ = 0;
};

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

double number_at(Type type, const std::byte* at) {
  switch (type) {
    case Type::kU8:
      return load<std::uint8_t>(at);
    case Type::kI8:
      return load<std::int8_t>(at);
    case Type::kU16:
      return load<std::uint16_t>(at);
    case Type::kI16:
      return load<std::int16_t>(at);
    case Type::kU32:
      return load<std::uint32_t>(at);
    case Type::kI32:
      return load<std::int32_t>(at);
    case Type::kF32:
      return static_cast<double>(load<float>(at));
    case Type::kBool:
      return load<std::uint8_t>(at) != 0 ? 1 : 0;
    case Type::kU64:
      return static_cast<double>(load<std::uint64_t>(at));
    case Type::kI64:
      return static_cast<double>(load<std::int64_t>(at));
    case Type::kF64:
      return load<double>(at);
    case Type::kString:
    case Type::kArray:
      break;
  }
  return 0;
}

bool is_array(const GgufValue& value) {
  return value.type == Type::kArray;
}

}  // namespace

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

void GgufMetadata::refuse(std::string_view key, std::string_view expected) const {
  const GgufValue& value = values_.at(key);
  std::string found = kTypeNames[static_cast<std::size_t>(value.element)];
  if (is_array(value)) found = "an array of " + found;
  if (!is_array(value) && value.element != Type::kString)
    found = fmt::format("{} ({})", number_at(value.element, value.bytes.data()), found);
  fail("{}: {}: expected {}, got {}", source_, key, expected, found);
}

std::optional<std::int64_t> GgufMetadata::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const std::byte* at = value->bytes.data();
  if (value->type == Type::kI64) return load<std::int64_t>(at);
  const bool fits = value->type != Type::kU64 || load<std::uint64_t>(at) <= static_cast<std::uint64_t>(INT64_MAX);
  const bool other = value->type == Type::kF32 || value->type == Type::kF64 || value->type == Type::kString;
  if (other || is_array(*value) || !fits) refuse(key, "an integer");
  if (value->type == Type::kU64) return static_cast<std::int64_t>(load<std::uint64_t>(at));
  return static_cast<std::int64_t>(number_at(value->type, at));
}

std::optional<double> GgufMetadata::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (is_array(*value) || value->type == Type::kString) refuse(key, "a number");
  return number_at(value->type, value->bytes.data());
}

std::optional<bool> GgufMetadata::flag(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != Type::kBool) refuse(key, "true or false");
  return load<std::uint8_t>(value->bytes.data()) != 0;
}

std::optional<std::string_view> GgufMetadata::text(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != Type::kString) refuse(key, "a string");
  return as_text(value->bytes.subspan(sizeof(std::uint64_t)));
}

std::optional<std::vector<std::string_view>> GgufMetadata::texts(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (!is_array(*value) || value->element != Type::kString) refuse(key, "an array of strings");
  std::vector<std::string_view> texts;
  texts.reserve(value->count);
  std::span<const std::byte> rest = value->bytes;
  for (std::uint64_t i = 0; i < value->count; ++i) {
    const auto size = load<std::uint64_t>(rest.data());
    texts.push_back(as_text(rest.subspan(sizeof size, size)));
    rest = rest.subspan(sizeof size + size);
  }
  return texts;
}

std::optional<std::vector<double>> GgufMetadata::numbers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (!is_array(*value) || value->element == Type::kString) refuse(key, "an array of numbers");
  std::vector<double> numbers(value->count);
  const std::size_t size = bytes_of_type(value->element);
  for (std::uint64_t i = 0; i < value->count; ++i)
    numbers[i] = number_at(value->element, value->bytes.data() + i * size);
  return numbers;
}

std::uint64_t GgufMetadata::count(std::string_view key) const {
  const GgufValue* value = find(key);
  return value && is_array(*value) ? value->count : 0;
}

bool is_gguf(std::span<const std::byte> file) {
  return file.size() >= kMagic.size() && as_text(file.first(kMagic.size())) == kMagic;
}

GgufHeader parse_gguf_header(std::span<const std::byte> file, const std::string& source) {
  return HeaderParser(file, source).parse();
}

}  // namespace foe
