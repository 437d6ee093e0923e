// Reads SentencePiece's tokenizer.model, a message of Protocol Buffers, into plain data. This is not libsentencepiece,
// as streams, grammars and stop strings need the bytes of each token, and since that library reads a file's trie
// without checking it. https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
#pragma once

#include <string_view>

#include "tokenizer/tokenizer_spec.h"

namespace foe {

struct SentencePieceModel {
  TokenizerSpec spec;
  std::optional<std::int32_t> begin_id;  // of a text
  SentencePieceRules& rules() { return std::get<SentencePieceRules>(spec.normalizer.at(0)); }
};

// Throws Error, naming what was expected and found, if the bytes are no such model, or one of words or characters.
// Control pieces become special tokens, which the library does not read in texts. Nothing is put around a text.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes);

}  // namespace foe
