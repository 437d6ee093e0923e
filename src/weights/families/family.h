// A family of models, as Hugging Face's config.json names it with "model_type", is a row of a table: how its keys are
// read into a ModelConfig, and what they are worth where a file does not have them. All mathematics is the
// ModelConfig's. The names of tensors are another table (tensor_names.h).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/model_config.h"
#include "weights/families/config_keys.h"

namespace foe {

struct Family {
  std::string_view model_type;
  // Fills in the layers, and what else of the model is the family's own. The keys that all families share
  // (read_model_keys() in family_parts.h) have been read.
  void (*read)(const ConfigKeys& keys, ModelConfig& config);
  // An object, as text, with what the family's configuration class has for keys that a file does not have: what
  // `save_pretrained` leaves out, and what published files leave out. No sizes that a file must say.
  std::string_view defaults = "{}";
};

// One list for each file of this folder.
std::span<const Family> dense_families();
std::span<const Family> moe_families();
std::span<const Family> routed_families();
std::span<const Family> gpt_oss_families();

// Null if there is none of this type.
const Family* find_family(std::string_view model_type);
// The types of all, for messages, each with a space before it.
std::string family_names();

}  // namespace foe
