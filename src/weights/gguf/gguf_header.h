// Reads the header of a GGUF file (github.com/ggml-org/ggml, docs/gguf.md). Such a file has, little-endian and without
// padding,
//   "GGUF", u32 version (2 or 3), u64 number of tensors, u64 number of keys,
//   for each key    its name, u32 type, its value; an array is u32 type, u64 count, values; a string u64 size, bytes
//   for each tensor its name, u32 number of dimensions, u64 each, the fastest first; u32 type; u64 offset in the data
// and then, from the next multiple of "general.alignment" (32 without it), the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weights/safetensors_header.h"

namespace foe {

// The value of a key, as a view of the file.
struct GgufValue {
  enum class Type : std::uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };
  Type type = Type::kU8;             // of an array: kArray
  Type element = Type::kU8;          // of an array; an element is no array itself
  std::uint64_t count = 1;           // of the elements of an array
  std::span<const std::byte> bytes;  // behind the types and the count
};

// The keys of a file, which must outlive this. Functions that want a key's value throw Error, naming the file and the
// key, what was expected and what was found.
class GgufMetadata {
 public:
  GgufMetadata(std::string source, std::map<std::string_view, GgufValue> values)
      : source_(std::move(source)), values_(std::move(values)) {}

  const std::string& source() const { return source_; }  // the file
  const std::map<std::string_view, GgufValue>& values() const { return values_; }
  bool has(std::string_view key) const { return values_.contains(key); }

  // None where there is no such key.
  std::optional<std::int64_t> integer(std::string_view key) const;  // of any integer type, and bool
  std::optional<double> number(std::string_view key) const;         // of any type but string
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  // The elements of an array. Its memory is proportional to the file's size, with a small factor.
  std::optional<std::vector<std::string_view>> texts(std::string_view key) const;
  std::optional<std::vector<double>> numbers(std::string_view key) const;  // of any type but string
  // How many elements an array has; 0 where there is no such key.
  std::uint64_t count(std::string_view key) const;

 private:
  const GgufValue* find(std::string_view key) const;
  [[noreturn]] void refuse(std::string_view key, std::string_view expected) const;

  std::string source_;
  std::map<std::string_view, GgufValue> values_;
};

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<TensorInfo> tensors;  // ordered by name; no name comes twice. Shapes have the slowest dimension first
};

// Whether a file begins as GGUF files do.
bool is_gguf(std::span<const std::byte> file);

// `file` is the whole file, of which only the header is read, and must outlive the result. Throws Error, beginning with
// `source`, unless the header is well-formed and each tensor lies in the data, at a multiple of the alignment and
// beside the others. For a header of n bytes this takes time n log n and memory proportional to n.
GgufHeader parse_gguf_header(std::span<const std::byte> file, const std::string& source);

}  // namespace foe
