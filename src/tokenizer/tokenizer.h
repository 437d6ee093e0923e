// Turns text into token ids and back, with byte-level BPE as a Hugging Face tokenizer.json describes it. The ids are
// those of the `tokenizers` library. The files of GPT-2, Llama 3, Qwen and OLMoE are of this kind. Those of
// SentencePiece (Mixtral's) are not, and are refused.
//
// It differs from the library as follows. An added token decodes to its own text, even if that text could be read as
// byte-level characters (the library decodes an added "é" to the byte E9). Texts are neither truncated nor padded.
// Character classes and normalisation follow the Unicode versions of the PCRE2 and utf8proc in use (14 and 15 in Debian
// 12; the library has 16 and 9), so characters that are newer than one of the versions may differ.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace foe {

struct EncodeOptions {
  bool add_special_tokens = true;  // add what the post-processor puts around a text (BOS, EOS)
  bool parse_special = true;       // read "<|eos|>" in the text as that token; to be false for untrusted text
};

// Immutable and cheap to copy; any thread may use it.
class Tokenizer {
 public:
  // Reads the file `path` (not its folder). Throws Error if it cannot be read, or from_json() refuses it.
  static Tokenizer load(const std::string& path);
  // Throws Error, naming the member of the JSON, what was expected and what was found, if the JSON is not such a
  // tokenizer.
  static Tokenizer from_json(std::string_view json);

  // Returns the ids of a text. Throws Error if `text` is not valid UTF-8 (with the offset), if it has 2^30 bytes or
  // more, or if the tokenizer's regular expression takes too many steps.
  std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // Returns the text of the ids as valid UTF-8; ill-formed sequences become U+FFFD. Ids without a token are skipped.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;

  // Returns the bytes of one token, which need not be valid UTF-8; empty for an id without a token. The view is valid
  // as long as a copy of this tokenizer exists.
  std::string_view token_bytes(std::int32_t id) const;

  std::size_t longest_token() const;  // in bytes; at least 1
  int vocab_size() const;             // the largest id plus one: arrays by id have this length
  // Returns the id of a token by its name in the file, such as "Ġthe" or "<|endoftext|>".
  std::optional<std::int32_t> token_to_id(std::string_view name) const;
  bool is_special(std::int32_t id) const;

  // Whether decode(encode(text, {.add_special_tokens = false})) equals `text` for every valid text: there is no
  // normaliser, no prefix space, and nothing is removed or stripped.
  bool lossless() const;

 private:
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
  // Returns the text that `id` completes; empty while a character is incomplete.
  std::string push(std::int32_t id);
  // Ends the text. Returns U+FFFD for an incomplete character, otherwise an empty string. The decoder can be used
  // again.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;  // the bytes of an incomplete character, at most three
};

}  // namespace foe
