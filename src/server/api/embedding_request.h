// Reads the body of POST /v1/embeddings: OpenAI's fields and further ones of vLLM's, and what is foe's own, which of
// the hidden states make up an embedding.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "server/api/generation_request.h"

namespace foe {

inline constexpr std::size_t kMaxInputs = 2048;  // of one request, as OpenAI

struct EmbeddingRequest {
  std::vector<Prompt> inputs;  // at least one, each with at least one token
  Pooling pooling = Pooling::kLast;
  bool normalised = true;  // to the length 1
  bool base64 = false;     // the numbers as f32 in base64, the lowest byte first, instead of a list
  int priority = 0;
  std::uint64_t cache_salt = 0;  // what Request::cache_salt is
};

// `body` may be any bytes. Throws ApiError with status 400, naming the field, or 404 for another model.
EmbeddingRequest parse_embedding_request(std::string_view body, const ServedModel& model);

// Returns a request to the engine for each input.
std::vector<Request> engine_requests(const EmbeddingRequest& request);

// Returns about how many bytes the reply has at most, if an embedding has so many numbers.
std::size_t reply_bytes(const EmbeddingRequest& request, int hidden_size);

}  // namespace foe
