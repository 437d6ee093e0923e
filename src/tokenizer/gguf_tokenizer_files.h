// Writes the tokenizer of a GGUF file as files of a model folder.
#pragma once

#include <map>
#include <string>

namespace foe {

// Returns the contents of each file by its name: tokenizer.json of a byte-level vocabulary, tokenizer.model of
// SentencePiece's, and tokenizer_config.json, which also has the chat template. Throws Error if the vocabulary is none
// that such a file can hold, or the GGUF file has none.
std::map<std::string, std::string> gguf_tokenizer_files(const std::string& path);

}  // namespace foe
