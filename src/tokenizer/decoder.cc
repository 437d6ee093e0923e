#include "tokenizer/decoder.h"

#include <algorithm>
#include <array>

#include <fmt/core.h>

#include "base/error.h"
#include "text/hex.h"

namespace foe {
namespace {

struct Rewriting {
  std::string text;
  bool first;

  void operator()(const ReplaceText& step) { text = normalize({step}, text, false); }

  void operator()(const StripCharacters& step) {
    std::string_view rest = text;
    for (std::size_t i = 0; i < step.start && rest.starts_with(step.character); ++i)
      rest.remove_prefix(step.character.size());
    for (std::size_t i = 0; i < step.stop && rest.ends_with(step.character); ++i)
      rest.remove_suffix(step.character.size());
    text = std::string(rest);
  }

  void operator()(const RestoreSpaces& step) {
    text = normalize({ReplaceText{step.character, first && step.drops_first ? "" : " "}}, text, false);
  }
};

}  // namespace

std::optional<std::uint8_t> named_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<std::uint8_t>(16 * high + low);
}

std::string byte_name(unsigned byte) {
  return fmt::format("<0x{:02X}>", byte);
}

std::string decode_name(const DecoderSpec& spec, std::string_view name, bool first) {
  Rewriting rewriting{std::string(name), first};
  for (const auto& step : spec.steps) {
    std::visit(rewriting, step);
    if (const std::size_t most = most_rewritten_bytes(name.size()); rewriting.text.size() > most)
      fail("decoder: expected at most {} bytes for the token '{}', got more", most, name.substr(0, 100));
  }
  if (const auto byte = named_byte(rewriting.text); byte && spec.byte_fallback)
    return std::string(1, static_cast<char>(*byte));
  return std::move(rewriting.text);
}

void TextStart::append(const DecoderSpec& spec, const Token& token, std::string& out) {
  if (over_ || std::holds_alternative<KeepAll>(spec.start)) {
    over_ = true;
    out += token.bytes;
  } else if (std::holds_alternative<DropInFirstToken>(spec.start)) {
    over_ = true;
    out += decode_name(spec, token.name, /*first=*/true);
  } else if (const auto* drop = std::get_if<DropFirst>(&spec.start)) {
    std::string_view rest = token.bytes;
    for (; dropped_ < drop->count && rest.starts_with(drop->character); ++dropped_) rest.remove_prefix(1);
    over_ = !rest.empty() || dropped_ == drop->count;
    out += rest;
  } else {
    append_piece(std::get<DropPieceSpaces>(spec.start).of_each, token, out);
  }
}

void TextStart::append_piece(bool of_each, const Token& token, std::string& out) {
  std::string_view rest = token.bytes;
  const bool control = token.special && token.bytes == token.name;  // SentencePiece leaves out such pieces
  if (!token.byte && (dropped_ > 0 || has_text_)) over_ = true;
  if (!over_ && !control && !token.byte && token.name.starts_with(kSpaceSymbol)) {
    rest.remove_prefix(1);  // the space that the symbol has become
    dropped_ += !of_each;
  }
  has_text_ = has_text_ || (!control && !rest.empty());
  out += rest;
}

}  // namespace foe
