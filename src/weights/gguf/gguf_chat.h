// What a GGUF file says of chats: its template and its special tokens.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "weights/gguf/gguf_header.h"

namespace foe {

// Returns what a tokenizer_config.json would have: "chat_template" and "bos_token" and the like, as far as the file at
// `path` has them. Throws Error naming the file and the key.
nlohmann::json gguf_tokenizer_config(const std::string& path);

// Returns the ids of tokens that end a text: those that the file names, and control tokens whose names end a turn in
// some family of models. A chat would not end where the file names the other one only.
std::vector<std::int64_t> gguf_end_ids(const GgufMetadata& metadata);

}  // namespace foe
