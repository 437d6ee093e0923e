// What the server says of itself: the model, the version, the load, the tokenizer.
#pragma once

#include <cstdint>
#include <string>

#include "server/api/generation_request.h"

namespace foe {

// The bodies of GET /v1/models and GET /v1/models/ID. The latter throws ApiError 404 for another model's id; `path` is
// the request's, whose id may be percent-encoded.
std::string models_body(const std::string& model, std::int64_t created, int max_positions);
std::string model_body(const std::string& path, const std::string& model, std::int64_t created, int max_positions);

std::string version_body(const std::string& version);

// The body of GET /tokenizer_info: tokenizer_config.json of the model's folder (of a GGUF file, what that has
// of it), as vLLM returns it, with the chat template that is used.
std::string tokenizer_info_body(const std::string& model_dir, const ServedModel& model);

}  // namespace foe
