// Reads the header of a .safetensors file. Such a file has N as a little-endian u64, then N bytes of JSON,
//   {"__metadata__": {string: string}, NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
// padded with spaces, and then the data, to which the offsets are relative
// (https://github.com/huggingface/safetensors).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "weights/stored_type.h"

namespace foe {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kMaxTensorRank = 8;

struct TensorInfo {
  std::string name;
  const StoredType* type = nullptr;  // never null once parsed
  std::vector<std::int64_t> shape;   // none negative
  std::size_t begin = 0, end = 0;    // in bytes from the start of the file; there is no alignment
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // ordered by name; no name comes twice
  std::map<std::string, std::string> metadata;
};

// `file` is the whole file, of which only the header is read. Throws Error, beginning with `source`, unless the header
// is well-formed and the tensors cover the data without holes or overlaps to its last byte. For a header of n bytes
// this takes time n log n and memory proportional to n.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source);

// Returns the bytes of a tensor; nothing if its bits overflow an int64, or do not fill whole bytes.
std::optional<std::int64_t> tensor_bytes(const StoredType& type, std::span<const std::int64_t> shape);

// Returns "[2, 3]".
std::string to_string(std::span<const std::int64_t> shape);

}  // namespace foe
