// A served model with a small tokenizer, for tests of requests.
#pragma once

#include "server/api/generation_request.h"
#include "tokenizer/gpt2_tokenizer.h"

namespace foe {

inline ServedModel small_model() {
  return {.name = "m", .vocab_size = 561, .max_positions = 64, .max_choices = 3, .tokenizer = gpt2_tokenizer()};
}

}  // namespace foe
