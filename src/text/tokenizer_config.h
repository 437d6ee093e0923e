// What a model folder says about its tokenizer outside of the tokenizer's own file.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace foe {

// Returns the object in tokenizer_config.json, or an empty one if there is no such file. Where the config has no
// `added_tokens_decoder`, members of special_tokens_map.json take the place of its own, as in transformers: older
// folders have the special tokens there. Throws Error, naming the file, if one is malformed.
nlohmann::json load_tokenizer_config(const std::string& model_dir);

// Returns the text of a special token that is given as a string or as {"content": ...}; nothing if it is null.
std::optional<std::string> special_token_text(const nlohmann::json& config, const std::string& name);

// The members of the config that name a special token.
inline constexpr const char* kSpecialTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                     "pad_token", "cls_token", "mask_token"};

}  // namespace foe
