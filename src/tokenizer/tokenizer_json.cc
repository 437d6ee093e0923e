#include "tokenizer/tokenizer_json.h"

#include "base/error.h"
#include "base/strict_json.h"
#include "text/json_fields.h"

namespace foe {
namespace {

[[noreturn]] void unsupported(const JsonField& field, std::string_view found, std::string_view supported) {
  fail("{}: '{}' is not supported, expected {}", field.path, found.substr(0, 100), supported);
}

// Returns the "type" of an object; empty if the object is null.
std::string type_of(const JsonField& field) {
  return field.null() ? std::string() : field["type"].string();
}

// Calls `visit` for `field` or, if it is a Sequence, for each element of its list named `list`, at any depth.
template <typename Visit>
void for_each_in_sequence(const JsonField& field, std::string_view list, const Visit& visit) {
  if (type_of(field) != "Sequence") return visit(field);
  const JsonField elements = field[list];
  for (std::size_t i = 0; i < elements.array().size(); ++i) for_each_in_sequence(elements[i], list, visit);
}

std::int32_t token_id(const JsonField& field, std::size_t tokens) {
  const std::int64_t id = field.integer();
  if (id < 0 || id > max_token_id(tokens)) {
    fail("{}: expected an id from 0 to {} (the limit for {} tokens), got {}", field.path, max_token_id(tokens), tokens,
         id);
  }
  return static_cast<std::int32_t>(id);
}

void check_token(const std::string& token, const std::string& path) {
  if (token.empty() || token.size() > kMaxTokenBytes) {
    fail("{}: expected a token of 1 to {} bytes, got {}", path, kMaxTokenBytes, token.size());
  }
}

// -- model ----------------------------------------------------------------------------------------------------------

void check_model_options(const JsonField& model) {
  if (const std::string& type = model["type"].string(); type != "BPE") {
    unsupported(model["type"], type, "BPE (byte-level)");
  }
  if (const JsonField dropout = model["dropout"]; !dropout.null() && dropout.value != 0.0) {
    unsupported(dropout, dropout.value.dump(), "null: encoding is deterministic");
  }
  for (const auto* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const JsonField affix = model[name]; !affix.null() && !affix.string().empty()) {
      unsupported(affix, affix.string(), "null or empty: words of a byte-level BPE are not marked");
    }
  }
  if (model["byte_fallback"].boolean_or(false)) {
    unsupported(model["byte_fallback"], "true", "false: a byte-level vocabulary has every byte");
  }
  // unk_token and fuse_unk have no effect, because no byte is unknown.
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

std::vector<AddedToken> parse_added_tokens(const JsonField& field, std::size_t tokens) {
  std::vector<AddedToken> added;
  if (field.null()) return added;
  for (std::size_t i = 0; i < field.array().size(); ++i) {
    const JsonField entry = field[i];
    AddedToken token;
    token.content = entry["content"].string();
    check_token(token.content, entry.path);
    token.id = token_id(entry["id"], tokens);
    token.special = entry["special"].boolean_or(false);
    token.single_word = entry["single_word"].boolean_or(false);
    token.lstrip = entry["lstrip"].boolean_or(false);
    token.rstrip = entry["rstrip"].boolean_or(false);
    token.normalized = entry["normalized"].boolean_or(!token.special);
    added.push_back(std::move(token));
  }
  return added;
}

// -- normalizer, pre-tokenizer, decoder -----------------------------------------------------------------------------

std::vector<NormalForm> parse_normalizer(const JsonField& field) {
  std::vector<NormalForm> forms;
  for_each_in_sequence(field, "normalizers", [&](const JsonField& step) {
    const std::string type = type_of(step);
    if (type.empty() && step.null()) return;
    if (type == "NFC") {
      forms.push_back(NormalForm::kNfc);
    } else if (type == "NFD") {
      forms.push_back(NormalForm::kNfd);
    } else if (type == "NFKC") {
      forms.push_back(NormalForm::kNfkc);
    } else if (type == "NFKD") {
      forms.push_back(NormalForm::kNfkd);
    } else {
      unsupported(step, type, "null, NFC, NFD, NFKC, NFKD or a Sequence of them");
    }
  });
  return forms;
}

SplitBehavior parse_behavior(const JsonField& field) {
  const std::string& name = field.string();
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  unsupported(field, name, "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

SplitStep parse_split(const JsonField& step) {
  const JsonField regex = step["pattern"]["Regex"];
  const SplitBehavior behavior = parse_behavior(step["behavior"]);
  const bool invert = step["invert"].boolean_or(false);
  if (!regex.null()) return {Regex(regex.string()), behavior, invert};
  const JsonField text = step["pattern"]["String"];
  if (text.string().empty()) fail("{}: expected a text to split at, got an empty one", text.path);
  return {text.string(), behavior, invert};
}

PreTokenizer parse_pre_tokenizer(const JsonField& field) {
  constexpr std::string_view kSupported = "Split, Digits and, last, ByteLevel, or a Sequence of them";
  PreTokenizer rules;
  bool byte_level = false;
  for_each_in_sequence(field, "pretokenizers", [&](const JsonField& step) {
    const std::string type = type_of(step);
    if (byte_level) fail("{}: expected ByteLevel to come last, got '{}' after it", step.path, type);
    if (type == "Split") {
      rules.steps.push_back(parse_split(step));
    } else if (type == "Digits") {
      const bool single = step["individual_digits"].boolean_or(false);
      rules.steps.push_back({Regex(R"(\p{N})"), single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
    } else if (type == "ByteLevel") {
      byte_level = true;
      rules.add_prefix_space = step["add_prefix_space"].boolean_or(true);
      if (step["use_regex"].boolean_or(true)) rules.after_prefix = gpt2_split();
    } else {
      unsupported(step, step.null() ? "null" : type, kSupported);
    }
  });
  if (!byte_level) fail("{}: expected ByteLevel as the last step, got none", field.path);
  return rules;
}

void check_decoder(const JsonField& field) {
  int steps = 0;
  for_each_in_sequence(field, "decoders", [&](const JsonField& step) {
    const std::string type = type_of(step);
    if (type != "ByteLevel" || ++steps > 1) unsupported(step, step.null() ? "null" : type, "ByteLevel, once");
  });
  if (steps == 0) fail("{}: expected ByteLevel, got an empty Sequence", field.path);
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

TokenizerSpec parse_tokenizer_json(std::string_view text) {
  if (text.size() > kMaxTokenizerFileBytes) {
    fail("expected at most {} bytes, got {}", kMaxTokenizerFileBytes, text.size());
  }
  const nlohmann::json document = parse_strict_json(text, "the file");
  const JsonField root{document, ""};
  if (const JsonField version = root["version"]; !version.null() && version.string() != "1.0") {
    unsupported(version, version.string(), "1.0");
  }
  const JsonField model = root["model"];
  check_model_options(model);
  const JsonField vocab = model["vocab"], added = root["added_tokens"];
  const std::size_t tokens = vocab.object().size() + (added.null() ? 0 : added.array().size());
  TokenizerSpec spec;
  spec.vocab = parse_vocab(vocab, tokens);
  spec.merges = parse_merges(model["merges"]);
  spec.ignore_merges = model["ignore_merges"].boolean_or(false);
  spec.added_tokens = parse_added_tokens(added, tokens);
  spec.normal_forms = parse_normalizer(root["normalizer"]);
  spec.pre_tokenizer = parse_pre_tokenizer(root["pre_tokenizer"]);
  parse_post_processor(root["post_processor"], tokens, spec);
  check_decoder(root["decoder"]);
  return spec;
}

}  // namespace foe
