// The architectures that GGUF files name: which family of Hugging Face's each is, and what its keys are called there.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace foe {

// A key "ARCHITECTURE.name" and the key of config.json that has the same value.
struct GgufKey {
  std::string_view name;
  const char* config;  // null: it changes nothing, or is read by itself
};

struct GgufArchitecture {
  std::string_view name;
  const char* model_type;
  // The rows of q and k are in another order than in Hugging Face's folders, in which the two numbers of a pair that
  // RoPE rotates are next to each other.
  bool reordered = false;
  std::span<const GgufKey> keys = {};  // of its own; they go before those of all
  // An object, as text, of what else config.json has to say: what llama.cpp implies by the architecture.
  std::string_view config = "{}";
};

// Null if there is none of this name.
const GgufArchitecture* find_gguf_architecture(std::string_view name);
// The names of all, for messages.
std::string gguf_architecture_names();
// The keys that mean the same in every architecture.
std::span<const GgufKey> common_gguf_keys();

}  // namespace foe
