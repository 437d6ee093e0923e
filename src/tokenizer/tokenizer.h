// Text to token ids and back: byte-level BPE as a Hugging Face tokenizer.json describes it, with the ids that the
// `tokenizers` library gives. GPT-2's, Llama 3's, Qwen's and OLMoE's files are of this kind; SentencePiece's
// (Mixtral's) are not, and are refused.
//
// Where this differs from the library: an added token decodes to its own text, even if that text could be read as
// byte-level characters (the library decodes an added "é" to the byte E9); lengths are neither truncated nor padded;
// character classes and normalisation follow the Unicode versions of the PCRE2 and utf8proc in use (14 and 15 in
// Debian 12; the library's are 16 and 9), which differ on characters that are younger than the older of the two.
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
  bool add_special_tokens = true;  // put what the post-processor adds (BOS, EOS) around the text
  bool parse_special = true;       // read "<|eos|>" in the text as that token; false for text from outside a template
};

// Immutable and cheap to copy; any thread may use it.
class Tokenizer {
 public:
  // Throws Error if the file cannot be read, or from_json refuses it. `path` is the file, not its folder.
  static Tokenizer load(const std::string& path);
  // Throws Error naming the member of the JSON, what was expected and what was found.
  static Tokenizer from_json(std::string_view json);

  // Throws Error with the offset if `text` is not valid UTF-8, if it is 2^30 bytes or longer, or if the tokenizer's own
  // regex gives up on it.
  std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // Valid UTF-8: what the tokens' bytes do not spell becomes U+FFFD. Ids without a token are skipped, whatever they
  // are.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;

  // The bytes of one token, which need not be valid UTF-8; empty for an id without a token. Lives as long as *this.
  std::string_view token_bytes(std::int32_t id) const;

  std::size_t longest_token() const;  // in bytes; at least 1
  int vocab_size() const;             // the largest id plus one: arrays by id have this length
  // By the token's name in the file: "Ġthe", "<|endoftext|>".
  std::optional<std::int32_t> token_to_id(std::string_view name) const;
  bool is_special(std::int32_t id) const;

  // Whether decode(encode(text, {.add_special_tokens = false})) is `text` for every valid text: no normaliser, no
  // prefix space, and nothing that is removed or stripped.
  bool lossless() const;

 private:
  struct Tables;
  explicit Tokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const Tables> tables_;
};

// Decodes token by token for streaming: the pieces, joined, are what Tokenizer::decode gives for all ids, and each
// piece is complete UTF-8. One thread at a time.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens = false)
      : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}
  // The text that `id` completes; empty while a character is unfinished.
  std::string push(std::int32_t id);
  // U+FFFD for an unfinished character, else nothing. The decoder can be used again.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;  // the bytes of an unfinished character: at most three
};

}  // namespace foe
