// Turns text into token ids and back, as the files of a model folder describe it: byte-level BPE, SentencePiece's BPE
// and Unigram models. The ids are those of the `tokenizers` library for a tokenizer.json, and of `sentencepiece` or
// `tiktoken` for their own files. A tokenizer is a chain of small steps (normalizer.h, pre_tokenizer.h, model.h,
// decoder.h); the readers of files (tokenizer_json.h, sentencepiece_model.h, tiktoken_file.h) put them together.
//
// It differs from the libraries as follows. An added token of a byte-level vocabulary decodes to its own text, even if
// that text could be read as byte-level characters (the library decodes an added "é" to the byte E9). Of bytes that
// spell no characters, only these become U+FFFD (`tokenizers` replaces all bytes of a run). Texts are neither truncated
// nor padded. Character classes and normalisation follow the Unicode versions of the PCRE2 and utf8proc in use (14 and
// 15 in Debian 12; the library has 16 and 9), so characters that are newer than one of the versions may differ.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/decoder.h"

namespace foe {

struct TokenizerSpec;

struct EncodeOptions {
  bool add_special_tokens = true;  // add what the post-processor puts around a text (BOS, EOS)
  bool parse_special = true;       // read "<|eos|>" in the text as that token; to be false for untrusted text
};

// Immutable and cheap to copy; any thread may use it.
class Tokenizer {
 public:
  // Loads the tokenizer of a GGUF file, or of a model folder: tokenizer.json, tokenizer.model (SentencePiece's or
  // tiktoken's), tiktoken.model or *.tiktoken, and the special tokens of tokenizer_config.json and
  // special_tokens_map.json. Throws Error, naming the file, what was expected and what was found.
  static Tokenizer of_model(const std::string& model_dir);
  static bool exists(const std::string& model_dir);  // whether the folder has one of these files
  // Reads a tokenizer.json at `path` alone. Throws Error if it cannot be read, or from_json() refuses it.
  static Tokenizer load(const std::string& path);
  static Tokenizer from_spec(const TokenizerSpec& spec);
  // Throws Error, naming the member of the JSON, what was expected and what was found, if the JSON is not such a
  // tokenizer.
  static Tokenizer from_json(std::string_view json);

  // Returns the ids of a text. Throws Error if `text` is not valid UTF-8 (with the offset), if it has 2^30 bytes or
  // more, or if the tokenizer's regular expression takes too many steps.
  std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // Returns the text of the ids as valid UTF-8; ill-formed sequences become U+FFFD. Ids without a token are skipped.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;

  // Returns the bytes of one token that does not begin a text, which need not be valid UTF-8; empty for an id without a
  // token. The view is valid as long as a copy of this tokenizer exists.
  std::string_view token_bytes(std::int32_t id) const;

  // Returns the token's name in the vocabulary, as "Ġthe" or "▁the"; empty for an id without a token. The view is
  // valid as long.
  std::string_view token_name(std::int32_t id) const;

  // Returns how many bytes of a text one id stands for at most; 0 if there is no limit, since characters can be removed
  // or left out.
  std::size_t bytes_per_token() const;
  int vocab_size() const;  // the largest id plus one: arrays by id have this length
  // Returns the id of a token by its name in the file, such as "Ġthe" or "<|endoftext|>".
  std::optional<std::int32_t> token_to_id(std::string_view name) const;
  bool is_special(std::int32_t id) const;

  // Returns the ids that end a text: those of the model's configuration, and the tokenizer's own eos_token.
  std::vector<std::int32_t> end_ids(std::vector<std::int32_t> of_model) const;
  // Returns what a user should know: ids that are not as the files say, or that the model lacks.
  std::vector<std::string> notes(int model_vocab_size) const;
  // Throws Error if the model lacks one of the ids.
  void check_ids(std::span<const std::int32_t> ids, int model_vocab_size) const;

  // Returns the SHA-256 of all that the files say; empty for a tokenizer that was made of JSON alone.
  const std::string& digest() const;

  // Whether decode(encode(text, {.add_special_tokens = false})) equals `text` for every valid text: bytes are
  // tokens, there is no normaliser, no prefix space, and nothing is removed or stripped.
  bool lossless() const;

 private:
  friend class StreamDecoder;
  struct Tables;
  explicit Tokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const Tables> tables_;
};

// Decodes token by token, for streaming. The pieces, joined, are what Tokenizer::decode() returns for all ids, and each
// piece is complete UTF-8. One thread at a time.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens = false)
      : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}
  // Says that `ids` come before, so that the first token does not begin a text. Their own text is not returned.
  void begin_after(std::span<const std::int32_t> ids);
  // Returns the text that `id` completes; empty while a character is incomplete.
  std::string push(std::int32_t id);
  // Ends the text. Returns U+FFFD for an incomplete character, otherwise an empty string. The decoder can be used
  // again.
  std::string finish();

 private:
  void append(std::int32_t id);

  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  TextStart start_;
  std::string pending_;  // the bytes of an incomplete character, at most three
};

}  // namespace foe
