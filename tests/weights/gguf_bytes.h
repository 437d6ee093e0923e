// GGUF files for tests: makes their bytes, and says where those of tests/golden are.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "weights/gguf/gguf_header.h"

namespace foe {

// The path of tests/golden/gguf/NAME.gguf.
inline std::string golden_gguf(const std::string& name) {
  return FOE_SOURCE_DIR "/tests/golden/gguf/" + name + ".gguf";
}

class GgufBytes {
 public:
  using Type = GgufValue::Type;

  GgufBytes& text(const std::string& key, const std::string& value) { return add(key, Type::kString, string(value)); }
  GgufBytes& u32(const std::string& key, std::uint32_t value) { return add(key, Type::kU32, raw(value)); }
  GgufBytes& f32(const std::string& key, float value) { return add(key, Type::kF32, raw(value)); }
  GgufBytes& flag(const std::string& key, bool value) { return add(key, Type::kBool, raw(std::uint8_t{value})); }
  GgufBytes& texts(const std::string& key, const std::vector<std::string>& values) {
    std::string bytes = raw(Type::kString) + raw<std::uint64_t>(values.size());
    for (const std::string& value : values) bytes += string(value);
    return add(key, Type::kArray, bytes);
  }
  GgufBytes& i32s(const std::string& key, const std::vector<std::int32_t>& values) {
    return array(key, Type::kI32, values);
  }
  GgufBytes& f32s(const std::string& key, const std::vector<float>& values) { return array(key, Type::kF32, values); }
  // A key with these bytes as its value.
  GgufBytes& add(const std::string& key, Type type, const std::string& value) {
    ++keys_;
    values_ += string(key) + raw(type) + value;
    return *this;
  }

  // Dimensions as in the file, the fastest first.
  GgufBytes& tensor(const std::string& name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                    std::uint64_t offset) {
    ++tensors_;
    infos_ += string(name) + raw(static_cast<std::uint32_t>(dimensions.size()));
    for (const std::uint64_t size : dimensions) infos_ += raw(size);
    infos_ += raw(type) + raw(offset);
    return *this;
  }

  // With so many bytes of data.
  std::string file(std::size_t data = 0, std::size_t alignment = 32) const {
    std::string bytes = "GGUF" + raw(std::uint32_t{3}) + raw(tensors_) + raw(keys_) + values_ + infos_;
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return bytes + std::string(data, '\1');
  }

  template <typename T>
  static std::string raw(T value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }
  static std::string string(const std::string& text) { return raw<std::uint64_t>(text.size()) + text; }

 private:
  template <typename T>
  GgufBytes& array(const std::string& key, Type type, const std::vector<T>& values) {
    std::string bytes = raw(type) + raw<std::uint64_t>(values.size());
    for (const T value : values) bytes += raw(value);
    return add(key, Type::kArray, bytes);
  }

  std::uint64_t keys_ = 0, tensors_ = 0;
  std::string values_, infos_;
};

}  // namespace foe
