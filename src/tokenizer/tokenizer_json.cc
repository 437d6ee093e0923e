#include "tokenizer/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/strict_json.h"
#include "text/json_fields.h"
#include "tokenizer/pipeline_json.h"

namespace foe {
namespace {

// -- model ----------------------------------------------------------------------------------------------------------

// Returns model.type, or, if an older file has none, the type that such members have.
std::string model_type(const JsonField& model) {
  if (const JsonField type = model["type"]; !type.null()) return type.string();
  if (model["vocab"].value.is_array()) return "Unigram";
  return model["merges"].null() ? "WordPiece or WordLevel" : "BPE";
}

void check_bpe_options(const JsonField& model, bool byte_level) {
  if (const JsonField dropout = model["dropout"]; !dropout.null() && dropout.value != 0.0) {
    unsupported(dropout, dropout.value.dump(), "null: encoding is deterministic");
  }
  for (const auto* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const JsonField affix = model[name]; !affix.null() && !affix.string().empty()) {
      unsupported(affix, affix.string(), "null or empty: tokens do not depend on where they are in a word");
    }
  }
  if (byte_level && model["byte_fallback"].boolean_or(false)) {
    unsupported(model["byte_fallback"], "true", "false: a byte-level vocabulary has bytes");
  }
}

std::vector<VocabEntry> parse_vocab(const JsonField& field, std::size_t tokens) {
  std::vector<VocabEntry> vocab;
  vocab.reserve(field.object().size());
  for (const auto& [token, id] : field.object()) {
    check_token(token, field.path);
    vocab.push_back({token, token_id({id, field.path + "['" + token.substr(0, 40) + "']"}, tokens)});
  }
  return vocab;
}

// Reads merges, each of which is ["a", "b"] or, in older files, "a b".
std::vector<std::pair<std::string, std::string>> parse_merges(const JsonField& field) {
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(field.array().size());
  for (std::size_t i = 0; i < field.array().size(); ++i) {
    const nlohmann::json& merge = field.array()[i];
    if (merge.is_array() && merge.size() == 2) {
      merges.emplace_back(field[i][0].string(), field[i][1].string());
      continue;
    }
    const std::string& pair = field[i].string();
    if (pair.starts_with("#version")) continue;  // the first line of merges.txt, from which older files were made
    const std::size_t space = pair.find(' ');
    if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) {
      fail("{}[{}]: expected two tokens with a space between them, got '{}'", field.path, i, pair.substr(0, 100));
    }
    merges.emplace_back(pair.substr(0, space), pair.substr(space + 1));
  }
  return merges;
}

// Returns the id of unk_token. Where every byte is a token, no symbol is unknown, and it need not be in the vocabulary.
std::optional<std::int32_t> parse_unknown_token(const JsonField& model, const TokenizerSpec& spec) {
  const JsonField field = model["unk_token"];
  if (field.null()) return std::nullopt;
  const auto found = std::find_if(spec.vocab.begin(), spec.vocab.end(),
                                  [&](const VocabEntry& entry) { return entry.name == field.string(); });
  if (found != spec.vocab.end()) return found->id;
  if (!spec.byte_level)
    fail("{}: expected a token of the vocabulary, got '{}'", field.path, field.string().substr(0, 100));
  return std::nullopt;
}

void parse_bpe(const JsonField& model, std::size_t tokens, TokenizerSpec& spec) {
  check_bpe_options(model, spec.byte_level);
  spec.vocab = parse_vocab(model["vocab"], tokens);
  spec.merges = parse_merges(model["merges"]);
  spec.ignore_merges = model["ignore_merges"].boolean_or(false);
  spec.byte_fallback = model["byte_fallback"].boolean_or(false);
  spec.fuse_unknown = model["fuse_unk"].boolean_or(false);
  spec.unknown_id = parse_unknown_token(model, spec);
}

// Reads a list of [token, score], whose indices are the ids.
void parse_unigram(const JsonField& model, std::size_t tokens, TokenizerSpec& spec) {
  constexpr double kUnknownPenalty = 10;
  if (spec.byte_level) fail("pre_tokenizer: expected no ByteLevel with a Unigram model, got it");
  spec.model = TokenizerSpec::Model::kUnigram;
  const JsonField vocab = model["vocab"];
  for (std::size_t i = 0; i < vocab.array().size(); ++i) {
    const JsonField score = vocab[i][1];
    if (!score.value.is_number()) fail("{}: expected a number, got {}", score.path, excerpt(score.value));
    const std::string& token = vocab[i][0].string();
    check_token(token, vocab[i].path);
    spec.vocab.push_back({token, static_cast<std::int32_t>(i), score.value.get<double>()});
  }
  if (spec.vocab.empty()) fail("{}: expected tokens, got none", vocab.path);
  const auto lowest = std::min_element(spec.vocab.begin(), spec.vocab.end(),
                                       [](const VocabEntry& a, const VocabEntry& b) { return a.score < b.score; });
  spec.unknown_score = lowest->score - kUnknownPenalty;
  spec.byte_fallback = model["byte_fallback"].boolean_or(false);
  if (const JsonField unknown = model["unk_id"]; !unknown.null()) {
    spec.unknown_id = token_id(unknown, tokens);
    if (static_cast<std::size_t>(*spec.unknown_id) >= spec.vocab.size())
      fail("{}: expected an id below {}, got {}", unknown.path, spec.vocab.size(), *spec.unknown_id);
  }
}

void parse_model(const JsonField& model, std::size_t tokens, TokenizerSpec& spec) {
  const std::string type = model_type(model);
  if (type == "BPE") return parse_bpe(model, tokens, spec);
  if (type == "Unigram") return parse_unigram(model, tokens, spec);
  unsupported(model["type"], type, "BPE or Unigram");
}

// -- added tokens ---------------------------------------------------------------------------------------------------

void parse_added_tokens(const JsonField& field, std::size_t tokens, TokenizerSpec& spec) {
  if (field.null()) return;
  AddedTokenList list(spec.vocab);
  for (std::size_t i = 0; i < field.array().size(); ++i) {
    AddedToken token = parse_added_token(field[i]);
    const std::int32_t said = token_id(field[i]["id"], tokens);
    const std::int32_t id = list.add(token);
    if (id != said)
      spec.notes.push_back(
          fmt::format("added_tokens: '{}' has the id {} instead of {}: the `tokenizers` library numbers "
                      "added tokens in the file's order",
                      token.content, id, said));
  }
  spec.added_tokens = list.take();
}

// -- post-processor -------------------------------------------------------------------------------------------------

// Appends the ids of a template's special token: special_tokens[name].ids.
void append_template_token(const JsonField& processor, const std::string& name, std::size_t tokens,
                           std::vector<std::int32_t>& ids) {
  const JsonField list = processor["special_tokens"][name]["ids"];
  if (list.array().size() + ids.size() > kMaxTemplateIds)
    fail("{}: expected templates of at most {} ids in all, got more", list.path, kMaxTemplateIds);
  for (std::size_t i = 0; i < list.array().size(); ++i) ids.push_back(token_id(list[i], tokens));
}

// Puts a template for one text around what is there already. If there are several, the later ones are outside.
void parse_template(const JsonField& processor, std::size_t tokens, TokenizerSpec& spec) {
  const JsonField pieces = processor["single"];
  std::vector<std::int32_t> before, after;
  int texts = 0;
  for (std::size_t i = 0; i < pieces.array().size(); ++i) {
    if (const JsonField special = pieces[i]["SpecialToken"]; !special.null()) {
      append_template_token(processor, special["id"].string(), tokens, texts ? after : before);
      continue;
    }
    const JsonField sequence = pieces[i]["Sequence"]["id"];
    if (sequence.string() != "A") unsupported(sequence, sequence.string(), "A: the template is for one text");
    ++texts;
  }
  if (texts != 1) fail("{}: expected the text (sequence A) once, got {}", pieces.path, texts);
  if (before.size() + after.size() + spec.prefix_ids.size() + spec.suffix_ids.size() > kMaxTemplateIds)
    fail("{}: expected templates of at most {} ids in all, got more", pieces.path, kMaxTemplateIds);
  spec.prefix_ids.insert(spec.prefix_ids.begin(), before.begin(), before.end());
  spec.suffix_ids.insert(spec.suffix_ids.end(), after.begin(), after.end());
}

void parse_post_processor(const JsonField& field, std::size_t tokens, TokenizerSpec& spec) {
  for_each_in_sequence(field, "processors", [&](const JsonField& step) {
    const std::string type = type_of(step);
    if (type == "TemplateProcessing") {
      parse_template(step, tokens, spec);
    } else if (!step.null() && type != "ByteLevel") {  // ByteLevel only moves offsets, which foe does not have
      unsupported(step, type, "null, ByteLevel, TemplateProcessing or a Sequence of them");
    }
  });
}

}  // namespace

void unsupported(const JsonField& field, std::string_view found, std::string_view supported) {
  fail("{}: '{}' is not supported, expected {}", field.path, found.substr(0, 100), supported);
}

std::string type_of(const JsonField& field) {
  return field.null() ? std::string() : field["type"].string();
}

void for_each_in_sequence(const JsonField& field, std::string_view list,
                          const std::function<void(const JsonField&)>& visit) {
  if (type_of(field) != "Sequence") return visit(field);
  const JsonField elements = field[list];
  for (std::size_t i = 0; i < elements.array().size(); ++i) for_each_in_sequence(elements[i], list, visit);
}

void check_token(const std::string& token, const std::string& path) {
  if (token.empty() || token.size() > kMaxTokenBytes) {
    fail("{}: expected a token of 1 to {} bytes, got {}", path, kMaxTokenBytes, token.size());
  }
}

std::int32_t token_id(const JsonField& field, std::size_t tokens) {
  const std::int64_t id = field.integer();
  if (id < 0 || id > max_token_id(tokens)) {
    fail("{}: expected an id from 0 to {} (the limit for {} tokens), got {}", field.path, max_token_id(tokens), tokens,
         id);
  }
  return static_cast<std::int32_t>(id);
}

AddedToken parse_added_token(const JsonField& entry) {
  AddedToken token;
  token.content = entry["content"].string();
  check_token(token.content, entry.path);
  token.special = entry["special"].boolean_or(false);
  token.single_word = entry["single_word"].boolean_or(false);
  token.lstrip = entry["lstrip"].boolean_or(false);
  token.rstrip = entry["rstrip"].boolean_or(false);
  token.normalized = entry["normalized"].boolean_or(!token.special);
  return token;
}

TokenizerSpec parse_tokenizer_json(std::string_view text) {
  if (text.size() > kMaxTokenizerFileBytes) {
    fail("expected at most {} bytes, got {}", kMaxTokenizerFileBytes, text.size());
  }
  const nlohmann::json document = parse_strict_json(text, "the file");
  const JsonField root{document, ""};
  if (const JsonField version = root["version"]; !version.null() && version.string() != "1.0") {
    unsupported(version, version.string(), "1.0");
  }
  const JsonField model = root["model"], added = root["added_tokens"];
  model.object();
  const std::size_t tokens = model["vocab"].value.size() + (added.null() ? 0 : added.array().size());
  TokenizerSpec spec;
  spec.pre_tokenizer = parse_pre_tokenizer(root["pre_tokenizer"], spec.byte_level);
  parse_model(model, tokens, spec);
  parse_added_tokens(added, tokens, spec);
  spec.normalizer = parse_normalizer(root["normalizer"]);
  spec.decoder = parse_decoder(root["decoder"], spec.byte_level);
  parse_post_processor(root["post_processor"], tokens, spec);
  return spec;
}

}  // namespace foe
