// How tokens become text. Each token has bytes of its own, whatever is next to it; only what begins a text may be
// different.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/normalizer.h"

namespace foe {

struct StripCharacters {  // up to so many of this character from both ends
  std::string character;
  std::size_t start = 0, stop = 0;
};
struct RestoreSpaces {  // this character becomes a space
  std::string character;
  bool drops_first = false;  // in the first token of a text, it is left out
};

// What is left out where a text begins.
struct KeepAll {};
struct DropInFirstToken {};  // what RestoreSpaces::drops_first says
struct DropFirst {           // up to `count` of this ASCII character
  char character = ' ';
  std::size_t count = 1;
};
struct DropPieceSpaces {  // SentencePiece's rule: one space symbol of the first piece
  bool of_each = false;   // and of each further piece, until there is text
};

struct DecoderSpec {
  bool byte_level = false;  // names are in the byte-level alphabet; there are no steps
  std::vector<std::variant<ReplaceText, StripCharacters, RestoreSpaces>> steps;  // rewrite the name of each token
  bool byte_fallback = false;                                                    // then "<0x0A>" is the byte 0A
  std::variant<KeepAll, DropInFirstToken, DropFirst, DropPieceSpaces> start;
};

// Returns the byte that "<0x0A>" names.
std::optional<std::uint8_t> named_byte(std::string_view token);
// Returns "<0x0A>" for a byte.
std::string byte_name(unsigned byte);

// Returns the bytes of a token of this name, unless names are in the byte-level alphabet. `first` says whether it is
// the first token of a text.
std::string decode_name(const DecoderSpec& spec, std::string_view name, bool first);

// Where a text begins, and what has been left out there so far.
class TextStart {
 public:
  // A token of a text in order: its name and bytes, and whether it is a control token or a single byte.
  struct Token {
    std::string_view name, bytes;
    bool special = false, byte = false;
  };
  // Appends the bytes of the next token to `out`, but for what is left out.
  void append(const DecoderSpec& spec, const Token& token, std::string& out);

  // Whether nothing more is left out.
  bool over() const { return over_; }

 private:
  void append_piece(bool of_each, const Token& token, std::string& out);

  bool over_ = false;        // nothing is left out any more
  bool has_text_ = false;    // DropPieceSpaces: there is text
  std::size_t dropped_ = 0;  // how many have been left out
};

}  // namespace foe
