#include "tokenizer/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "text/utf8.h"

namespace foe {
namespace {

// One field of a message: a number, or the bytes of a string or of another message.
struct WireField {
  std::uint64_t number = 0;
  std::uint64_t value = 0;
  std::string_view bytes;

  bool flag() const { return value != 0; }
  std::int32_t integer() const { return static_cast<std::int32_t>(static_cast<std::uint32_t>(value)); }
  float real() const { return std::bit_cast<float>(static_cast<std::uint32_t>(value)); }
};

// Reads the fields of a message. https://protobuf.dev/programming-guides/encoding
class WireReader {
 public:
  explicit WireReader(std::string_view message) : rest_(message) {}

  bool next(WireField& field) {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    field = {tag >> 3, 0, {}};
    switch (tag & 7) {
      case 0:
        field.value = varint();
        return true;
      case 1:
        field.value = fixed(8);
        return true;
      case 2:
        field.bytes = take(varint());
        return true;
      case 5:
        field.value = fixed(4);
        return true;
      default:
        fail("expected a SentencePiece model, got wire type {} of Protocol Buffers", tag & 7);
    }
  }

 private:
  std::string_view take(std::uint64_t size) {
    if (size > rest_.size())
      fail("expected a SentencePiece model, got a field of {} bytes where {} are left", size, rest_.size());
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }
  std::uint64_t fixed(std::size_t size) {
    std::uint64_t value = 0;
    const std::string_view bytes = take(size);
    for (std::size_t i = 0; i < size; ++i) value |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << 8 * i;
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    fail("expected a SentencePiece model, got a number of more than 64 bits");
  }

  std::string_view rest_;
};

template <typename Visit>
void for_each_field(std::string_view message, const Visit& visit) {
  WireReader reader(message);
  for (WireField field; reader.next(field);) visit(field);
}

enum PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct Piece {
  std::string text;
  float score = 0;
  int type = kNormal;
};

// The members that matter, with their defaults.
struct Model {
  std::vector<Piece> pieces;
  int model_type = 1;
  bool byte_fallback = false, space_is_suffix = false;
  std::int32_t bos_id = 1, eos_id = 2;
  std::string unknown_text = " \xe2\x81\x87 ";
  std::string charsmap, decoder_charsmap;
  bool add_dummy_prefix = true, remove_extra_spaces = true, escape_spaces = true;
};

Piece read_piece(std::string_view message) {
  Piece piece;
  for_each_field(message, [&](const WireField& field) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) piece.score = field.real();
    if (field.number == 3) piece.type = field.integer();
  });
  return piece;
}

void read_trainer_spec(std::string_view message, Model& model) {
  for_each_field(message, [&](const WireField& field) {
    if (field.number == 3) model.model_type = field.integer();
    if (field.number == 24) model.space_is_suffix = field.flag();
    if (field.number == 35) model.byte_fallback = field.flag();
    if (field.number == 41) model.bos_id = field.integer();
    if (field.number == 42) model.eos_id = field.integer();
    if (field.number == 44) model.unknown_text = field.bytes;
  });
}

void read_normalizer_spec(std::string_view message, Model& model) {
  for_each_field(message, [&](const WireField& field) {
    if (field.number == 2) model.charsmap = field.bytes;
    if (field.number == 3) model.add_dummy_prefix = field.flag();
    if (field.number == 4) model.remove_extra_spaces = field.flag();
    if (field.number == 5) model.escape_spaces = field.flag();
  });
}

Model read_model(std::string_view bytes) {
  Model model;
  for_each_field(bytes, [&](const WireField& field) {
    if (field.number == 1) model.pieces.push_back(read_piece(field.bytes));
    if (field.number == 2) read_trainer_spec(field.bytes, model);
    if (field.number == 3) read_normalizer_spec(field.bytes, model);
    if (field.number == 5) {
      for_each_field(field.bytes, [&](const WireField& f) {
        if (f.number == 2) model.decoder_charsmap = f.bytes;
      });
    }
  });
  return model;
}

void check_pieces(const Model& model) {
  std::unordered_set<std::string_view> words, others;
  std::size_t bytes = 0, unknown = 0;
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const Piece& piece = model.pieces[i];
    check_utf8(piece.text, fmt::format("piece {}", i));
    if (piece.text.empty() || piece.text.size() > kMaxTokenBytes)
      fail("piece {}: expected 1 to {} bytes, got {}", i, kMaxTokenBytes, piece.text.size());
    if (!std::isfinite(piece.score)) fail("piece {}: expected a finite score, got {}", i, piece.score);
    if (piece.type < kNormal || piece.type > kByte) fail("piece {}: expected a type of 1 to 6, got {}", i, piece.type);
    const bool word = piece.type == kNormal || piece.type == kUserDefined || piece.type == kUnused;
    if (!(word ? words : others).insert(piece.text).second)
      fail("piece {}: expected every piece once, got '{}' twice", i, piece.text);
    bytes += piece.type == kByte && named_byte(piece.text) && byte_name(*named_byte(piece.text)) == piece.text;
    unknown += piece.type == kUnknown;
  }
  if (unknown != 1) fail("expected one piece for what is unknown, got {}", unknown);
  if (model.byte_fallback && bytes != 256) fail("byte_fallback: expected 256 pieces of bytes, got {}", bytes);
}

// SentencePiece computes with floats here, and so do we.
void add_scores(const Model& model, TokenizerSpec& spec) {
  constexpr float kUnknownPenalty = 10;
  float lowest = FLT_MAX, highest = FLT_MIN;
  for (const Piece& piece : model.pieces) {
    if (piece.type != kNormal) continue;
    lowest = std::min(lowest, piece.score);
    highest = std::max(highest, piece.score);
  }
  spec.single_precision = true;
  spec.unknown_score = lowest - kUnknownPenalty;
  for (VocabEntry& entry : spec.vocab) {
    if (entry.kind != VocabEntry::Kind::kWhole) continue;
    entry.score = static_cast<float>(entry.name.size()) * highest - 0.1;  // chosen wherever it can be
    entry.kind = VocabEntry::Kind::kWord;
  }
}

VocabEntry::Kind kind_of(const Piece& piece, bool bpe) {
  if (piece.type == kUserDefined) return VocabEntry::Kind::kWhole;
  if (piece.type == kNormal) return VocabEntry::Kind::kWord;
  if (piece.type == kUnused && bpe) fail("expected no unused pieces in a BPE model, got '{}'", piece.text);
  return VocabEntry::Kind::kNotText;
}

SentencePieceRules normalizer_of(const Model& model) {
  SentencePieceRules rules;
  if (!model.charsmap.empty()) rules.charsmap = std::make_shared<const Charsmap>(model.charsmap);
  Trie kept;
  for (const Piece& piece : model.pieces)
    if (piece.type == kUserDefined) kept.insert(piece.text, 0);
  if (!kept.empty()) rules.kept = std::make_shared<const Trie>(std::move(kept));
  rules.add_prefix = model.add_dummy_prefix;
  rules.prefix_is_suffix = model.space_is_suffix;
  rules.remove_extra_spaces = model.remove_extra_spaces;
  rules.escape_spaces = model.escape_spaces;
  return rules;
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes) {
  const Model model = read_model(bytes);
  if (model.model_type != 1 && model.model_type != 2)
    fail("model_type: expected 1 (Unigram) or 2 (BPE), got {}", model.model_type);
  if (!model.decoder_charsmap.empty()) fail("denormalizer_spec: expected none, got a precompiled_charsmap");
  check_pieces(model);
  SentencePieceModel result;
  TokenizerSpec& spec = result.spec;
  spec.model = model.model_type == 2 ? TokenizerSpec::Model::kBpe : TokenizerSpec::Model::kUnigram;
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const Piece& piece = model.pieces[i];
    const auto id = static_cast<std::int32_t>(i);
    spec.vocab.push_back({piece.text, id, piece.score, kind_of(piece, model.model_type == 2)});
    if (piece.type == kUnknown) {
      spec.unknown_id = id;
      spec.texts.emplace_back(id, model.unknown_text);
    }
    if (piece.type == kUnknown || piece.type == kControl)
      spec.added_tokens.push_back({.content = piece.text, .id = id, .special = true});
    if (piece.type == kControl && id == model.eos_id) spec.end_id = id;
    if (piece.type == kControl && id == model.bos_id) result.begin_id = id;
  }
  if (model.model_type == 1) add_scores(model, spec);
  spec.byte_fallback = spec.decoder.byte_fallback = model.byte_fallback;
  spec.fuse_unknown = true;
  spec.normalizer.push_back(normalizer_of(model));
  spec.decoder.steps.push_back(RestoreSpaces{std::string(kSpaceSymbol), false});
  if (model.add_dummy_prefix || model.remove_extra_spaces)
    spec.decoder.start = DropPieceSpaces{model.remove_extra_spaces};
  return result;
}

}  // namespace foe
