// The architectures that GGUF files name: which family of Hugging Face's each is, and what its keys are called there.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace foe {

// A key "ARCHITECTURE.name" and the key of config.json that has the same value.
struct GgufKey {
  std::string_view name;
  const char* config;                      // null: it changes nothing, or is read by itself
  std::optional<int> only = std::nullopt;  // the one value that the family computes; true is 1
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
  // The row to take instead for a file that has experts.
  std::string_view with_experts = {};
  // What the object "rope_scaling" of YaRN has besides what keys say.
  std::string_view yarn = "{}";
  // The flag of config.json that says whether q and k have norms, where files differ in it: their tensors say it.
  const char* qk_norm_flag = nullptr;
  // Files do not say by what attention scores are multiplied. It is the width of a head, but in the largest model,
  // which has so many layers, the model's width divided by the number of heads. 0 where this is no question.
  int layers_of_largest = 0;
};

// Null if there is none of this name.
const GgufArchitecture* find_gguf_architecture(std::string_view name);
// The names of all, for messages.
std::string gguf_architecture_names();
// The keys that mean the same in every architecture.
std::span<const GgufKey> common_gguf_keys();

}  // namespace foe
