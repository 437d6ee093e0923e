// How the text of a byte-level model is cut into words, by the name that a GGUF file has for it.
#pragma once

#include <string_view>

#include "weights/gguf/gguf_header.h"

namespace foe {

// What the name of a pre-tokenizer means, as far as Hugging Face's tokenizers of the models with this name agree.
struct GgufPreTokenizer {
  std::string_view name;
  std::string_view pattern;  // empty: GPT-2's
  bool digits = false;       // each digit is a word of its own; before the pattern
  bool nfc = false;
  bool ignore_merges = false;
  bool begins = false;  // a text begins with bos_token, unless the file says otherwise
};

// Returns what "tokenizer.ggml.pre" names. Throws Error, naming the file, if there is no name, or one that is not
// known.
const GgufPreTokenizer& gguf_pre_tokenizer(const GgufMetadata& metadata);

}  // namespace foe
