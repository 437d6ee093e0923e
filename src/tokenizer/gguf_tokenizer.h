// Reads the tokenizer in the keys of a GGUF file: byte-level BPE ("gpt2") or SentencePiece-like BPE ("llama").
//
// Such a file says less than a tokenizer.json: of the normalizer and the regular expression it has only a name
// ("tokenizer.ggml.pre"), whose meaning is known here, and of added tokens not whether they take in the spaces beside
// them.
#pragma once

#include <string>

#include "tokenizer/tokenizer_spec.h"
#include "weights/gguf/gguf_header.h"

namespace foe {

// Throws Error, naming the file and the key, what was expected and what was found.
TokenizerSpec read_gguf_tokenizer(const GgufMetadata& metadata);
// The same of the file at `path`, or of its first shard.
TokenizerSpec load_gguf_tokenizer(const std::string& path);

}  // namespace foe
