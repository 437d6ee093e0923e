// The golden tokenizers of GPT-2's form, with 561 tokens, and of Llama 2's, for tests that need real ids and texts.
#pragma once

#include "tokenizer/tokenizer.h"

namespace foe {

inline const Tokenizer& gpt2_tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(FOE_SOURCE_DIR "/tests/golden/tokenizer/gpt2.json");
  return kTokenizer;
}

inline const Tokenizer& llama2_tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(FOE_SOURCE_DIR "/tests/golden/tokenizer/llama2.json");
  return kTokenizer;
}

}  // namespace foe
