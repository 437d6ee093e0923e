// Finds and reads the files of a model folder's tokenizer.
#pragma once

#include <cstdint>
#include <string>

#include "tokenizer/tokenizer_spec.h"

namespace foe {

// Of a GGUF file, reads its keys (gguf_tokenizer.h). Of a folder, reads tokenizer.json or, if there is none,
// tokenizer.model (SentencePiece's or tiktoken's), tiktoken.model or
// *.tiktoken, and what tokenizer_config.json, special_tokens_map.json and added_tokens.json say of special tokens.
// Throws Error, naming the file, what was expected and what was found.
TokenizerSpec load_tokenizer_spec(const std::string& model_dir);

// Returns the path of the file that load_tokenizer_spec() reads the vocabulary from, the GGUF file or one in
// the folder; empty if there is none.
std::string find_tokenizer_file(const std::string& model_dir);

}  // namespace foe
